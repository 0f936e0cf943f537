"""The command line: the fields of `Config`, with the defaults of a preset or of the run that is resumed."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from .config import OWN_OPTIONS, TASK_PRESETS, Config, check_owner, told_default
from .runs import read_config
from .usage import telling_usage

PROGRAM = "python -m train"
# May change when a run is resumed, as they change no number; data that lie elsewhere have to be the same.
FREE = ("data", "workers", "save_steps", "keep", "tensorboard")


@dataclass(frozen=True)
class Arguments(Config):
    """Trains a small network: to tell whether an image holds a white patch, or the class of arrays or sensor windows.

    Other first words are commands of their own, each with a --help: attend draws what a trained network looks at,
    compare holds the training against PyTorch's, report trains all networks and writes the results as a page.

    Attributes:
        resume: Goes on with the run in this folder, with the options that it has; on as many devices of the same kind,
            with the same versions, to the bit as if it had not been stopped.
        resume_older: With --resume: if the newest checkpoint is damaged, go on from the one before it.
    """

    resume: Annotated[str | None, told_default("a new run", "DIR")] = None
    resume_older: bool = False

    @property
    def config(self) -> Config:
        """Without what is not part of a run."""
        return Config(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Config)})


def parse(argv: Sequence[str]) -> Arguments:
    """Reads the options; ``--preset`` and ``--task`` say what the others default to, wherever they stand.

    With ``--resume`` the others default to those of that run, and may not differ from them.

    Raises:
        SystemExit: with status 2 after a message and the usage line, where an option or value is unknown; with status 0
            after ``--help``.
        ValueError: no run to resume, options that differ from its own, or that belong to another task.
    """
    preset, task, resume = _first(argv)
    stored = None if resume is None else {**vars(read_config(Path(resume))), "run_dir": resume}
    with telling_usage(Arguments, PROGRAM):
        named = task if stored is None else stored["task"]
        shown = without_others(named) if named in TASK_PRESETS else Arguments
        default = shown(**(stored or vars(_defaults(preset, task or "patch"))))
        _check_named(argv, default.task)
        arguments = tyro.cli(shown, prog=PROGRAM, args=list(argv), default=default)
    if stored is not None:
        _check_same(stored, vars(arguments.config), resume)
    elif arguments.resume_older:
        raise ValueError("--resume-older belongs to --resume, got no --resume")
    return arguments


def without_others(task: str) -> type[Arguments]:
    """`Arguments` without the options that other tasks alone read: those keep their defaults."""
    hints = get_type_hints(Config, include_extras=True)
    others = {option for owner, own in OWN_OPTIONS.items() if owner != task for option in own}
    hidden = [
        (field.name, tyro.conf.Suppress[hints[field.name]], dataclasses.field(default=field.default))
        for field in dataclasses.fields(Config)
        if field.name in others
    ]
    shown = dataclasses.make_dataclass("Arguments", hidden, bases=(Arguments,), frozen=True)
    shown.__doc__ = Arguments.__doc__
    return shown


def _first(argv: Sequence[str]) -> tuple[str, str | None, str | None]:
    """The options on which the defaults of all others, and the help, depend."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--preset", default="quick")
    first.add_argument("--task")
    first.add_argument("--resume")
    try:
        found = first.parse_known_args(argv)[0]
    except argparse.ArgumentError:  # one of them without a value: tyro says so
        return "quick", None, None
    return found.preset, found.task, found.resume


def _defaults(preset: str, task: str) -> Config:
    """Those of a preset and a task; of an unknown one, which tyro will tell, those of the first."""
    presets = TASK_PRESETS.get(task, TASK_PRESETS["patch"])
    return presets.get(preset, presets["quick"])


def _check_named(argv: Sequence[str], task: str) -> None:
    """Refuses another task's options also where they have the value that they have anyway."""
    given = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in argv if word.startswith("--")}
    for option in (option for own in OWN_OPTIONS.values() for option in own):
        if option in given:
            check_owner(option, task)


def _check_same(stored: dict[str, Any], given: dict[str, Any], folder: str | None) -> None:
    differing = [
        f"--{name.replace('_', '-')} is {stored[name]} there, got {value}"
        for name, value in given.items()
        if value != stored[name] and name not in FREE
    ]
    if differing:
        raise ValueError(f"--resume {folder} holds a run with another configuration: {'; '.join(differing)}")
