"""The folder of a run: what was asked for, what came of it, epoch by epoch and step by step."""

import contextlib
import dataclasses
import json
import os
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TextIO, get_args, get_origin, get_type_hints

from .config import Config, check, options_of
from .data import Source
from .metrics import EpochMetrics

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CONFIG, DATA, EPOCHS, STEPS = "config.json", "data.json", "metrics.jsonl", "steps.jsonl"
LOCK = ".lock"  # empty; stays, as another process may be about to hold it
Lines = list[dict[str, Any]]


class RunFolder:
    """Writes a line of ``metrics.jsonl`` per epoch and of ``steps.jsonl`` per training step.

    Each line is written at once: a process that is killed loses none that it wrote.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._steps: TextIO | None = None
        self._held: BinaryIO | None = None

    @classmethod
    def create(cls, config: Config, source: Source) -> "RunFolder":
        """Makes the folder and writes ``data.json`` and ``config.json``.

        Raises:
            ValueError: the folder cannot be made, or holds something already, or another process makes it.
        """
        folder = cls(check_run_dir(config))
        path = folder.path
        with contextlib.ExitStack() as undo:
            undo.callback(folder.close)
            try:
                path.mkdir(parents=True, exist_ok=True)
                folder.hold()
                _check_free(path)  # another process may have begun meanwhile, and even ended
                write_whole(path / DATA, json.dumps(source.identity, indent=2) + "\n")
                folder.write_config(config)
            except OSError as error:
                raise ValueError(f"--run-dir must be a folder that can be written to, got {path}: {error}") from error
            undo.pop_all()
        return folder

    def hold(self) -> None:
        """Keeps other processes from training in this folder, until it is closed or this process ends, however it does.

        The lock is the operating system's, on a file that nothing replaces. Windows has none of this kind, and some
        network file systems have none at all; there nothing is held.

        Raises:
            ValueError: another process trains in it.
        """
        if fcntl is None or not self.path.is_dir():
            return
        held = (self.path / LOCK).open("ab")  # for writing, without which NFS gives no lock
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            raise ValueError(
                f"--run-dir or --resume must name a folder in which no other process trains, got {self.path}, in which "
                "one does"
            ) from None
        except OSError:  # no locks on this file system
            held.close()
        else:
            self._held = held

    def write_config(self, config: Config) -> None:
        """Writes ``config.json``."""
        write_whole(self.path / CONFIG, json.dumps(options_of(config), indent=2) + "\n")

    @property
    def checkpoints(self) -> Path:
        """Where the run's checkpoints lie."""
        return self.path / "checkpoints"

    def add_epoch(self, metrics: EpochMetrics) -> None:
        """Appends an epoch."""
        with (self.path / EPOCHS).open("a") as file:
            file.write(json.dumps(dataclasses.asdict(metrics)) + "\n")

    def add_step(self, step: int, error: float) -> None:
        """Appends a training step, counted from 1."""
        if self._steps is None:
            self._steps = (self.path / STEPS).open("a", buffering=1)
        self._steps.write(json.dumps({"step": step, "error": error}) + "\n")

    def sync(self) -> None:
        """Waits until the logs are on the disk: a checkpoint that is about to be written counts on their lines."""
        for log in (self.path / EPOCHS, self.path / STEPS):
            if log.exists():
                sync(log)
        sync(self.path)

    def history(self) -> list[EpochMetrics]:
        """The epochs so far."""
        try:
            return [EpochMetrics(**line) for line in _lines(self.path / EPOCHS)]
        except TypeError as error:
            raise ValueError(f"{self.path / EPOCHS} must hold an epoch's metrics in each line, got: {error}") from None

    def step_errors(self) -> list[float]:
        """The error of each training step so far."""
        try:
            return [line["error"] for line in _lines(self.path / STEPS)]
        except KeyError:
            raise ValueError(f"{self.path / STEPS} must hold a step's error in each line, got one without") from None

    def check_data(self, source: Source) -> None:
        """Raises ``ValueError`` where the run began with other images, naming what differs."""
        began = read_json(self.path / DATA)
        differing = [
            f"{name} {began.get(name)} then, {value} now"
            for name, value in source.identity.items()
            if value != began.get(name)
        ]
        if differing:
            raise ValueError(f"{source.name} is not what the run in {self.path} began with: {'; '.join(differing)}")

    def go_back_to(self, epochs: int, steps: int) -> None:
        """Forgets what came later, before it comes again.

        Raises:
            ValueError: a log that ends before, or lines that are none of a run's.
        """
        self.history()  # both look at what is in the lines
        self.step_errors()
        logs = {name: _lines(self.path / name) for name in (EPOCHS, STEPS)}
        for (name, lines), count in zip(logs.items(), (epochs, steps), strict=True):
            if len(lines) < count:
                raise ValueError(f"{self.path / name} must have at least {count} lines, got {len(lines)}")
        for name, count in ((EPOCHS, epochs), (STEPS, steps)):
            kept = logs[name][:count]
            write_whole(self.path / name, "".join(json.dumps(line) + "\n" for line in kept))

    def close(self) -> None:
        """Closes the file of steps and lets go of the folder."""
        steps, held, self._steps, self._held = self._steps, self._held, None, None
        if steps is not None:
            with contextlib.suppress(OSError):  # what a full disk does not take has been told when it was written
                steps.close()
        if held is not None:
            held.close()


def read_config(path: Path) -> Config:
    """The configuration of the run in a folder; options that it does not know yet have their defaults.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
        ValueError: a configuration that cannot be read, or that is none of this version.
    """
    file = path / CONFIG
    if not path.is_dir():
        raise FileNotFoundError(f"there must be a run in {path}, got no such folder")
    if not file.is_file():
        raise FileNotFoundError(f"there must be a run in {path}, got no {CONFIG} there")
    values = read_json(file)
    unknown = values.keys() - {field.name for field in dataclasses.fields(Config)}
    if unknown:
        raise ValueError(f"{file} must hold options of this version, got {', '.join(sorted(unknown))}")
    hints = get_type_hints(Config)
    for name, value in values.items():
        if not _fits(value, hints[name]):
            raise ValueError(f"{file}: {name} must be {_described(hints[name])}, got {value!r}")
    config = Config(**values)
    try:
        check(config)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return config


def read_json(file: Path) -> dict[str, Any]:
    """What a file holds, a JSON object.

    Raises:
        ValueError: it does not.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} must be readable JSON, got: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(values).__name__}")
    return values


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is one of an option's."""
    if get_origin(hint) is not None and type(None) not in get_args(hint):  # Literal
        return value in get_args(hint)
    kinds = get_args(hint) or (hint,)
    return type(value) in kinds or (float in kinds and type(value) is int)


def _described(hint: Any) -> str:
    return " or ".join(getattr(kind, "__name__", str(kind)) for kind in get_args(hint) or (hint,))


def check_run_dir(config: Config) -> Path:
    """The folder that ``config`` names, or a new one's name.

    Raises:
        ValueError: there is a file of that name, or a folder that holds something.
    """
    if config.run_dir is None:
        return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{config.title}"
    if not config.run_dir:
        raise ValueError("--run-dir must name a folder, got ''")
    path = Path(config.run_dir)
    _check_free(path)
    return path


def _check_free(path: Path) -> None:
    # What is left of a run that was killed before it began.
    nothing = {LOCK, DATA, _unfinished(DATA), _unfinished(CONFIG)}
    try:
        held = {file.name for file in path.iterdir()} if path.is_dir() else set()
        taken = path.exists() and (not path.is_dir() or bool(held - nothing))
        is_run = taken and (path / CONFIG).is_file()
    except OSError as error:
        raise ValueError(f"--run-dir must be a folder that can be written to, got {path}: {error}") from error
    if taken:
        hint = f"; to go on with the run in it: --resume {shlex.quote(str(path))}" if is_run else ""
        raise ValueError(f"--run-dir must be new or an empty folder, got {path}, which is there already{hint}")


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all, whatever happens to the process or to the power."""
    unfinished = path.with_name(_unfinished(path.name))
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    sync(unfinished)
    os.replace(unfinished, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # where folders cannot be opened
        return
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _unfinished(name: str) -> str:
    return f".{name}.unfinished"


def _lines(path: Path) -> Lines:
    """The lines of a log as far as they are whole; the last one may have been cut off."""
    lines: Lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict):
            break
        lines.append(line)
    return lines
