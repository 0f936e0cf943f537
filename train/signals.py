"""Ctrl-C and SIGTERM: the first asks the run to save and leave, the second ends it at once."""

import os
import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Within it the two signals are caught. One around it hears of them when it is left, and it of what came before.

    Attributes:
        signal: the number of the signal that came, None before.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        # What a shell starts in the background ignores Ctrl-C, and goes on doing so.
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._ask) for number in heeded}
        for around in self._around():
            self.signal = self.signal or around.signal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for around in self._around():
            around.signal = around.signal or self.signal

    def _around(self) -> set["Stop"]:
        owners = {getattr(handler, "__self__", None) for handler in self._before.values()}
        return {owner for owner in owners if isinstance(owner, Stop)}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(status(number))
        self.signal = number
        os.write(2, b"\nstopping: the run saves and leaves; once more, and it leaves at once\n")


def status(number: int) -> int:
    """The exit status that shells give a command that a signal ended."""
    return 128 + number


INTERRUPTED = status(signal.SIGINT)  # of a command that Ctrl-C ended before there was something to save
