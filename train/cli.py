"""The command line: the fields of `Config`, with the defaults of a preset."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

import tyro

from .config import PRESETS, Config

PROGRAM = "python -m train"


def parse(argv: Sequence[str]) -> Config:
    """Reads the options; ``--preset`` says what the others default to, wherever it stands.

    Raises:
        SystemExit: with status 2 after a message and the usage line, where an option or value is unknown; with status 0
            after ``--help``.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--preset", default="quick")
    try:
        preset = first.parse_known_args(argv)[0].preset
    except argparse.ArgumentError:  # --preset without a value: tyro says so
        preset = "quick"
    try:
        return tyro.cli(Config, prog=PROGRAM, args=list(argv), default=PRESETS.get(preset, PRESETS["quick"]))
    except SystemExit as stop:
        if stop.code:
            print(usage(), file=sys.stderr)
        raise


def usage() -> str:
    """The usage line."""
    options = " ".join(f"[--{field.name.replace('_', '-')} ...]" for field in dataclasses.fields(Config))
    return f"usage: {PROGRAM} [--help] {options}"
