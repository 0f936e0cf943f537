"""Output to a terminal that may go away: what is written to it afterwards goes nowhere.

The operating system makes each write to a lost terminal an error, also in a process that goes on without it (disown,
nohup) or that still has to save after SIGHUP.
"""

import errno
import io
import os
import sys
from typing import Any


class Terminal(io.FileIO):
    """A terminal, open for writing; to write to it once it is lost is no error."""

    def write(self, data: Any, /) -> int:
        """Writes bytes, and returns how many."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return memoryview(data).nbytes


def outlive_terminals() -> None:
    """Lets stdout and stderr, where they are terminals, be lost without an error (not on Windows: no files there)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if os.name != "nt" and isinstance(stream, io.TextIOWrapper) and stream.isatty():
            raw = Terminal(stream.fileno(), "w", closefd=False)
            lasting = io.TextIOWrapper(
                io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=True
            )
            setattr(sys, name, lasting)
