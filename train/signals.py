"""Ctrl-C, SIGTERM, SIGHUP of a lost terminal: the first asks the run to save and leave, the second ends it at once."""

import contextlib
import os
import signal
import socket
import threading
import time
from types import FrameType, TracebackType
from typing import Any

SIGHUP = getattr(signal, "SIGHUP", None)  # Windows has none
SIGNALS = [number for number in (signal.SIGINT, signal.SIGTERM, SIGHUP) if number is not None]
AGAIN = 0.1  # seconds after which a signal is a second one: `timeout` sends each twice, to the process and to its group


class Stop:
    """Within it the signals are caught. One around it hears of them when it is left, and it of what came before.

    Python calls a handler when the main thread comes back from C, and for two equal signals until then once; a thread
    that hears of each without delay ends the process at the second.

    Attributes:
        signal: the number of the signal that came, None before.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._came: float | None = None  # when the first one did
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        # What a shell starts in the background ignores Ctrl-C, and goes on doing so.
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._ask) for number in heeded}
        for around in self._around():
            self._hear(around)
        self._heard, self._told = socket.socketpair()
        self._told.setblocking(False)
        self._told_before = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._told_before)
        self._told.close()  # which ends the thread
        self._thread.join()
        self._heard.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for around in self._around():
            around._hear(self)

    def _around(self) -> set["Stop"]:
        owners = {getattr(handler, "__self__", None) for handler in self._before.values()}
        return {owner for owner in owners if isinstance(owner, Stop)}

    def _hear(self, other: "Stop") -> None:
        self.signal, self._came = self.signal or other.signal, self._came or other._came

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            return
        self.signal = number
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping: the run saves and leaves; once more, and it leaves at once\n")

    def _listen(self) -> None:
        while numbers := self._heard.recv(1):
            number, now = numbers[0], time.monotonic()
            if number not in self._before:
                continue
            if self._came is None:
                self._came = now
            elif now - self._came > AGAIN:
                os._exit(status(number))


def status(number: int) -> int:
    """The exit status that shells give a command that a signal ended."""
    return 128 + number


INTERRUPTED = status(signal.SIGINT)  # of a command that Ctrl-C ended before there was something to save
