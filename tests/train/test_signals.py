"""Signals that stop a run: stops within stops, and signals within long calls."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train.signals import INTERRUPTED, Stop

ROOT = Path(__file__).parents[2]
# What a step that compiles is like: a call that lets other threads run and comes back to Python at its end alone.
IN_C = """
import hashlib
from train.signals import Stop
with Stop():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 400_000_000)
"""
ASKED = """
import time
from train.signals import Stop
with Stop() as stop:
    print("ready", flush=True)
    while stop.signal is None:
        time.sleep(0.01)
    time.sleep(0.5)
    print("saved", flush=True)
    open(NAME, "w").write(str(stop.signal))
"""


# What a shell starts in the background ignores some signals, and so would what these tests start.
HEED = """
import signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
"""


def start(script, **pipes):
    process = subprocess.Popen(
        [sys.executable, "-c", HEED + script], cwd=ROOT, text=True, **{"stdout": subprocess.PIPE, **pipes}
    )
    if process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process


def ask(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def nothing_ends_the_process(monkeypatch):
    """A second signal would."""
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(f"left with {code}"))


def test_a_stop_hears_of_what_came_before_it_within_the_one_around():
    with Stop() as around:
        ask()
        with Stop() as stop:
            assert stop.signal == signal.SIGTERM
    assert around.signal == signal.SIGTERM


def test_the_one_around_hears_of_what_came_within():
    with Stop() as around:
        with Stop():
            ask()
        assert around.signal == signal.SIGTERM
        with Stop() as later:
            assert later.signal == signal.SIGTERM


def test_stops_one_after_the_other_know_nothing_of_each_other():
    with Stop():
        ask()
    with Stop() as stop:
        assert stop.signal is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_second_ends_the_process_also_within_a_long_call(number):
    process = start(IN_C)
    process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None
    while process.poll() is None:  # to a busy machine two may be one
        process.send_signal(number)
        time.sleep(0.3)
    assert process.returncode == 128 + number


def test_two_at_once_are_one(tmp_path):
    at_once = "import train.signals; train.signals.AGAIN = 60"  # however busy the machine is
    process = start(at_once + ASKED.replace("NAME", repr(str(tmp_path / "saved"))))
    process.send_signal(signal.SIGTERM)  # as `timeout` does
    process.send_signal(signal.SIGHUP)  # and as systemd may
    assert process.communicate(timeout=120)[0] == "saved\n"
    assert (tmp_path / "saved").read_text() in ("1", "15")


def test_the_status_of_ctrl_c_is_that_of_shells():
    assert INTERRUPTED == 130
