"""Signals that stop a run, and a terminal that is lost."""

import io
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from train.show import say
from train.signals import INTERRUPTED, Stop

ROOT = Path(__file__).parents[2]
# What a shell starts in the background ignores some signals, and so would what these tests start.
START = """
import os, signal, sys, time
from rich.console import Console
import train.signals
from train.show import say
from train.signals import SIGNALS, Stop
for number in SIGNALS:
    signal.signal(number, signal.SIG_DFL)
train.signals.AGAIN = {again}
with Stop() as stop:
    say(Console(), "ready")
    while not stop:
        time.sleep(0.01)
    time.sleep({saving})
    say(Console(), "saved")
    open({name!r}, "w").write(str(int(stop.signal)))
"""


def start(tmp_path, again=0.1, saving=0.3, stdout=subprocess.PIPE):
    script = START.format(again=again, saving=saving, name=str(tmp_path / "saved"))
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, text=True, stdout=stdout)
    if process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process


def test_one_stop_within_another_is_that_one():
    with Stop() as around:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.signal == signal.SIGTERM
        assert around
        with Stop() as later:
            assert later.signal == signal.SIGTERM
    with Stop() as stop:
        assert not stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_the_first_signal_saves_and_the_second_ends_the_process_at_once(number, tmp_path):
    process = start(tmp_path, saving=600)
    process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=60) == -number
    assert not (tmp_path / "saved").exists()


def test_two_at_once_are_one(tmp_path):
    process = start(tmp_path, again=60)  # however busy the machine is
    process.send_signal(signal.SIGTERM)  # as `timeout` does
    process.send_signal(signal.SIGHUP)  # and as systemd may
    assert process.communicate(timeout=120)[0] == "saved\n"
    assert (tmp_path / "saved").read_text() in ("1", "15")


def test_a_run_that_loses_its_terminal_saves(tmp_path):
    ours, theirs = pty.openpty()
    process = start(tmp_path, stdout=theirs)
    os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:
        shown = b""
        while not shown.endswith(b"\n"):
            shown += terminal.read(1)
    process.send_signal(signal.SIGHUP)
    process.wait(timeout=120)
    assert (tmp_path / "saved").read_text() == str(int(signal.SIGHUP))


def test_output_to_a_full_disk_is_dropped():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    say(Console(file=Full()), "a line")


def test_the_status_of_ctrl_c_is_that_of_shells():
    assert INTERRUPTED == 130
