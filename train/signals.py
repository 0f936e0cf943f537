"""Ctrl-C and SIGTERM: the first asks the run to save and leave, the second ends it at once."""

import os
import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Within it the two signals are caught. One around it hears of them when it is left.

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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
            around = getattr(handler, "__self__", None)
            if isinstance(around, Stop) and self.signal is not None:
                around.signal = self.signal

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(status(number))
        self.signal = number
        os.write(2, b"\nstopping: the run saves and leaves; once more, and it leaves at once\n")


def status(number: int) -> int:
    """The exit status that shells give a command that a signal ended."""
    return 128 + number
