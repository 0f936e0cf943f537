"""Reads the words of a command into a dataclass, and says its usage line where that fails."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import tyro

Options = TypeVar("Options")


def read_options(kind: type[Options], program: str, argv: Sequence[str]) -> Options:
    """The options of a command, by the fields of ``kind``.

    Raises:
        SystemExit: with status 2 after a message and the usage line, where an option or value is unknown; with status 0
            after ``--help``.
    """
    with telling_usage(kind, program):
        return tyro.cli(kind, prog=program, args=list(argv))


@contextmanager
def telling_usage(kind: Any, program: str) -> Iterator[None]:
    """Adds the usage line to an error with which tyro ends the process."""
    try:
        yield
    except SystemExit as stop:
        if stop.code:
            options = " ".join(f"[--{field.name.replace('_', '-')} ...]" for field in dataclasses.fields(kind))
            print(f"usage: {program} [--help] {options}", file=sys.stderr)
        raise
