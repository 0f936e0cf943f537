"""Saves that fail: one error each, for whoever waits for the save."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from .messages import first_line


class SaveError(Exception):
    """A checkpoint could not be written."""


@contextlib.contextmanager
def as_save_errors() -> Iterator[None]:
    """Whatever orbax and the libraries below it raise on a full disk, say, as one kind of error."""
    try:
        yield
    except SaveError:
        raise
    except Exception as error:
        raise SaveError(first_line(error)) from error


def say_nothing_else() -> None:
    """From here on a save that fails is told of by its `SaveError` alone.

    orbax, asyncio and tensorstore else write a traceback for every array, from threads of their own and whenever memory
    is collected, so that there is no while to which this could be limited.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_of_no_save)
    if not isinstance(sys.unraisablehook, _UnraisableHook):
        sys.unraisablehook = _UnraisableHook()


def _is_of_no_save(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname and "exception was never retrieved" not in str(record.msg)


class _UnraisableHook:
    """Passes on all but what tensorstore tells where it is done with an array after orbax has given up the save."""

    def __init__(self) -> None:
        self._before = sys.unraisablehook

    def __call__(self, what: "sys.UnraisableHookArgs") -> None:
        outermost = what.exc_traceback.tb_frame.f_code.co_name if what.exc_traceback is not None else ""
        if what.exc_type is not RuntimeError or outermost != "call_soon_threadsafe":
            self._before(what)
