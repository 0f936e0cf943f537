"""Command lines: the fields of a dataclass as options, and those of ``python -m train`` itself."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from .config import PRESETS, Config, flag, told_default
from .runs import read_config

PROGRAM = "python -m train"
Options = TypeVar("Options")
TaskConfig = TypeVar("TaskConfig", bound=Config)


def read_options(kind: type[Options], program: str, argv: Sequence[str], default: Any = None) -> Options:
    """The options of a command, by the fields of ``kind``; ends the process after ``--help`` or a bad option."""
    try:
        options: Options = tyro.cli(kind, prog=program, args=list(argv), default=default)
        return options
    except SystemExit as stop:
        if stop.code:
            shown: Any = kind if default is None else default
            fields = [*dataclasses.fields(getattr(default, "config", shown)), *dataclasses.fields(shown)]
            names = dict.fromkeys(flag(field.name) for field in fields if field.name != "config")
            print(f"usage: {program} [--help] {' '.join(f'[{name} ...]' for name in names)}", file=sys.stderr)
        raise


@dataclass(frozen=True)
class Arguments(Generic[TaskConfig]):
    """Trains a small network: to tell whether an image holds a white patch, or the class of arrays or sensor windows.

    Each --task has options of its own: see --help with --task. Other commands, each with a --help: attend draws what a
    trained network attends to, compare checks the training against PyTorch's, report trains all networks and writes a
    page of results.

    Attributes:
        config: The options of the run.
        resume: Continues the run in this folder with its own options; on as many devices of the same kind, with the
            same versions, the result is the same to the bit as if it had not been stopped.
        resume_older: With --resume: if the newest checkpoint is damaged, continue from the one before it.
    """

    config: Annotated[tyro.conf.OmitArgPrefixes[TaskConfig], tyro.conf.arg(name="")]
    resume: Annotated[str | None, told_default("a new run", "DIR")] = None
    resume_older: bool = False


def parse(argv: Sequence[str]) -> Arguments[Any]:
    """Reads the options of a training run; ``--preset`` and ``--task`` say what the others default to.

    With ``--resume`` they default to those of that run, from which only `Config.FREE` may differ.
    """
    first = _read_first(argv)
    if first.resume is None:
        default = PRESETS[first.task][first.preset]
    else:
        default = dataclasses.replace(read_config(Path(first.resume)), run_dir=first.resume)
    kind: Any = Arguments[type(default)]  # type: ignore[misc]  # the options of the task, known only now
    try:
        arguments: Arguments[Any] = read_options(kind, PROGRAM, argv, Arguments(default))
    except SystemExit as stop:
        if stop.code:
            _tell_owners(argv, default.task)
        raise
    if first.resume is not None:
        _check_same(default, arguments.config, first.resume)
    elif arguments.resume_older:
        raise ValueError("--resume-older needs --resume, got no --resume")
    return arguments


def _read_first(argv: Sequence[str]) -> argparse.Namespace:
    """The options that the defaults of all others, and the help, depend on; tyro complains about bad ones."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--preset", default="quick", choices=PRESETS["patch"])
    first.add_argument("--task", default="patch", choices=PRESETS)
    first.add_argument("--resume")
    try:
        return first.parse_known_args(argv)[0]
    except argparse.ArgumentError:
        return first.parse_known_args([])[0]


def _tell_owners(argv: Sequence[str], task: str) -> None:
    """Says which task has the options that this one lacks."""
    given = {word.partition("=")[0].replace("_", "-") for word in argv}
    own = {field.name for field in dataclasses.fields(PRESETS[task]["quick"])}
    for owner, presets in PRESETS.items():
        for name in [field.name for field in dataclasses.fields(presets["quick"]) if field.name not in own]:
            if flag(name) in given:
                print(f"error: {flag(name)} belongs to --task {owner}, got --task {task}", file=sys.stderr)


def _check_same(stored: Config, given: Config, folder: str) -> None:
    differing = [
        f"{flag(name)} is {getattr(stored, name)} there, got {value}"
        for name, value in vars(given).items()
        if value != getattr(stored, name) and name not in Config.FREE
    ]
    if differing:
        raise ValueError(f"--resume {folder} holds a run with another configuration: {'; '.join(differing)}")
