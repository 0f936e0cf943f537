"""Output that outlives its terminal."""

import errno
import io
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from train.terminal import Terminal, outlive_terminals

ROOT = Path(__file__).parents[2]
# Writes until its terminal is lost, and once more.
PROGRAM = """
import signal, sys
from pathlib import Path
from train.signals import Stop
from train.terminal import outlive_terminals
signal.signal(signal.SIGHUP, signal.SIG_DFL if {heeds} else signal.SIG_IGN)
outlive_terminals()
with Stop() as stop:
    print("caf\\xe9")
    sys.stdin.readline()
    print("on its way")
    print("and what it says", file=sys.stderr)
    Path({name!r}).write_text(str(stop.signal))
"""


@pytest.mark.parametrize("heeds", [True, False], ids=["told to end", "told to go on"])
def test_a_process_outlives_its_terminal(heeds, tmp_path):
    ours, theirs = pty.openpty()
    program = PROGRAM.format(heeds=heeds, name=str(tmp_path / "saved"))
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:
        shown = b""
        while not shown.endswith(b"\n"):  # it has written all of its line: else that write fails, before any signal
            shown += terminal.read(1)
        assert shown.decode() == "caf\xe9\r\n"
    process.send_signal(signal.SIGHUP)
    process.communicate("\n", timeout=120)
    assert process.returncode == 0
    assert (tmp_path / "saved").read_text() == (str(int(signal.SIGHUP)) if heeds else "None")


def test_other_errors_than_that_of_a_lost_terminal_are_raised():
    with Terminal(os.open("/dev/full", os.O_WRONLY), "w") as full, pytest.raises(OSError) as raised:
        full.write(b"a")
    assert raised.value.errno == errno.ENOSPC


def test_what_is_no_terminal_stays_as_it_is(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stream)
    outlive_terminals()
    assert sys.stdout is stream
