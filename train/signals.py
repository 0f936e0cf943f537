"""Ctrl-C, SIGTERM and the like: the first asks the run to save and leave, a second one ends the process at once."""

import contextlib
import os
import signal
import time
from types import FrameType
from typing import Any

import jax

from .hosts import largest

# SIGHUP comes from a lost terminal, SIGUSR1 from batch systems before they end a job; Windows lacks both.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
AGAIN = 0.1  # seconds within which signals count as one: `timeout` signals both the process and its group


class Stop:
    """Catches these signals while entered; entered within another Stop, it returns that one."""

    def __init__(self) -> None:
        self.signal: int | None = None  # the first that came, of several processes what they have agreed on
        self._heard: int | None = None  # the first that came to this process
        self._came = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for number in SIGNALS:
            handler = signal.getsignal(number)
            around = getattr(handler, "__self__", None)
            if isinstance(around, Stop):
                return around
            if handler is not signal.SIG_IGN:  # a shell's background jobs ignore Ctrl-C, and should go on doing so
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def status(self) -> int:
        """The exit status that shells give a command that was ended by this signal."""
        return 128 + (self.signal or 0)

    def heed(self) -> bool:
        """Whether the run was asked to stop; several processes call this at the same places, and all get one answer."""
        if jax.process_count() > 1:
            self.signal = int(largest(self._heard or 0)) or None
        return bool(self)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._heard is None:
            self._heard, self._came = number, time.monotonic()
            if jax.process_count() == 1:
                self.signal = number
            with contextlib.suppress(OSError):  # a lost terminal
                os.write(2, b"\nstopping: saving a checkpoint; signal again to exit at once\n")
        elif time.monotonic() - self._came > AGAIN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


INTERRUPTED = 128 + signal.SIGINT  # the status of a command that Ctrl-C ended before there was anything to save
