"""The folder of a run: its options, data and machine, and its logs, epoch by epoch and step by step."""

import dataclasses
import json
import os
import platform
import shlex
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, get_args, get_type_hints

import jax

from .config import PRESETS, Config, check
from .data import Source

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CONFIG, DATA, MACHINE, EPOCHS, STEPS = "config.json", "data.json", "machine.json", "metrics.jsonl", "steps.jsonl"
LOCK = ".lock"  # empty; never deleted, as another process may be about to lock it
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
VECTORS = ("avx", "fma", "amx", "asimd", "sve")  # instruction sets on which XLA's sums depend, by their first letters


@dataclasses.dataclass(frozen=True)
class EpochMetrics:
    """An epoch's line in ``metrics.jsonl``: mean losses and accuracies, and the speed of training.

    Training batches are scored before their step and in training mode, test batches after the epoch in eval mode.
    """

    epoch: int  # counted from 1
    train_error: float
    train_accuracy: float
    test_error: float
    test_accuracy: float
    images_per_second: float  # or arrays, or windows; without the first step, which may compile, but with the saves


KEYS = {EPOCHS: list(EpochMetrics.__annotations__), STEPS: ["step", "error"]}  # of the lines of the logs


class RunFolder:
    """The files of a run in the folder ``path``; each line of a log is written at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BinaryIO | None = None

    @classmethod
    def create(cls, config: Config, source: Source) -> "RunFolder":
        """Creates the folder that ``config`` names, which must be new or empty, and locks it."""
        folder = cls(check_run_dir(config))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.hold()
            _check_free(folder.path)  # again, now that no other process can begin
            folder.write_json(DATA, source.identity)
            folder.write_json(CONFIG, vars(config))
        except (OSError, ValueError) as error:
            folder.close()
            if isinstance(error, ValueError):
                raise
            raise ValueError(f"--run-dir must be a writable folder, got {folder.path}: {error}") from error
        return folder

    def hold(self) -> None:
        """Locks the folder until `close` or the end of this process, where the system has locks."""
        if fcntl is None or not self.path.is_dir():
            return
        self._lock = (self.path / LOCK).open("ab")  # for writing, as NFS locks nothing else
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ValueError(
                f"--run-dir or --resume must name a folder in which no other process trains, got {self.path}, in which "
                "one does"
            ) from None
        except OSError:  # no locks on this file system
            self.close()

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        write_whole(self.path / name, json.dumps(values, indent=2) + "\n")

    def add_epoch(self, metrics: EpochMetrics) -> None:
        self._add(EPOCHS, vars(metrics))

    def add_step(self, step: int, error: float) -> None:
        """Appends a training step, counted from 1."""
        self._add(STEPS, {"step": step, "error": error})

    def _add(self, name: str, line: dict[str, Any]) -> None:
        with (self.path / name).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def sync(self) -> None:
        """Flushes the logs to the disk."""
        for path in (self.path / EPOCHS, self.path / STEPS, self.path):
            if path.exists():
                sync(path)

    def history(self) -> list[EpochMetrics]:
        return [EpochMetrics(**line) for line in _lines(self.path / EPOCHS)]

    def step_errors(self) -> list[float]:
        """The error of each training step so far."""
        return [line["error"] for line in _lines(self.path / STEPS)]

    def check_data(self, source: Source) -> None:
        """Raises ``ValueError`` where the run began with other data, naming what differs."""
        differing = differences(read_json(self.path / DATA), source.identity)
        if differing:
            raise ValueError(f"{source.name} is not what the run in {self.path} began with: {differing}")

    def go_back_to(self, epochs: int, steps: int) -> None:
        """Truncates the logs to the place of a checkpoint; raises ``ValueError`` where one ends before it."""
        counts = {self.path / EPOCHS: epochs, self.path / STEPS: steps}
        logs = {path: _lines(path) for path in counts}
        for path, lines in logs.items():
            if len(lines) < counts[path]:
                raise ValueError(f"{path} must have at least {counts[path]} lines, got {len(lines)}")
        for path, lines in logs.items():
            write_whole(path, "".join(json.dumps(line) + "\n" for line in lines[: counts[path]]))

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()


def differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Which values of a stored file differ from today's."""
    return "; ".join(
        f"{name} {then.get(name)} then, {value} now" for name, value in now.items() if value != then.get(name)
    )


def machine(devices: int) -> dict[str, Any]:
    """What a run's last bits depend on beside its options: the devices that share a batch, and versions."""
    processor = {"processor": platform.machine(), "instructions": instructions()}
    return {
        "devices": devices,
        "kind": jax.devices()[0].device_kind,
        **(processor if jax.default_backend() == "cpu" else {}),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{name: version(name) for name in PACKAGES},
    }


def instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's vector instructions, where the system lists them."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    flags = (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features")))
    return " ".join(sorted(name for name in next(flags, []) if name.startswith(VECTORS)))


def compare_machine(folder: Path, devices: int) -> list[str]:
    """A line where a run resumes on another machine than it began on; older folders may not say where."""
    if not (folder / MACHINE).is_file():
        return []
    began = read_json(folder / MACHINE)
    differing = differences(began, {name: value for name, value in machine(devices).items() if name in began})
    return [f"not bit-identical to a run on the machine where it began: {differing}"] if differing else []


def read_config(path: Path) -> Config:
    """The options of the run in a folder; those that an earlier version did not write have their defaults."""
    file = path / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"there must be a run in {path}, got no {CONFIG if path.is_dir() else 'such folder'}")
    values = read_json(file)
    task = values.get("task", "patch")
    kind = type(PRESETS[task if isinstance(task, str) and task in PRESETS else "patch"]["quick"])
    hints = get_type_hints(kind)
    unknown = values.keys() - {field.name for field in dataclasses.fields(kind)}
    if unknown:
        raise ValueError(f"{file} must hold options of this version, got {', '.join(sorted(unknown))}")
    for name, value in values.items():
        choices = get_args(hints[name]) or (hints[name],)  # values or types
        if value not in choices and type(value) not in choices and not (float in choices and type(value) is int):
            expected = " or ".join(getattr(choice, "__name__", str(choice)) for choice in choices)
            raise ValueError(f"{file}: {name} must be {expected}, got {value!r}")
    config = kind(**values)
    try:
        check(config)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return config


def read_json(file: Path) -> dict[str, Any]:
    """Reads a file with a JSON object; raises ``ValueError`` where it holds something else."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} must be readable JSON, got: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(values).__name__}")
    return values


def check_run_dir(config: Config) -> Path:
    """The folder that ``config`` names, which must be new or empty, or a name for it."""
    if config.run_dir is None:
        return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{config.title}"
    if not config.run_dir:
        raise ValueError("--run-dir must name a folder, got ''")
    _check_free(Path(config.run_dir))
    return Path(config.run_dir)


def _check_free(path: Path) -> None:
    leftovers = {LOCK, DATA, _unfinished(DATA), _unfinished(CONFIG)}  # of a run that was killed before it began
    try:
        names = {file.name for file in path.iterdir()} if path.exists() else set()
    except NotADirectoryError:
        names = {path.name}
    except OSError as error:
        raise ValueError(f"--run-dir must be a writable folder, got {path}: {error}") from error
    if names - leftovers:
        hint = f"; to continue the run in it: --resume {shlex.quote(str(path))}" if CONFIG in names else ""
        raise ValueError(f"--run-dir must be a new or empty folder, got {path}, which exists{hint}")


def write_whole(path: Path, text: str) -> None:
    """Writes a file completely or not at all, whatever happens to the process or to the power."""
    unfinished = path.with_name(_unfinished(path.name))
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    sync(unfinished)
    os.replace(unfinished, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":  # where folders cannot be opened
        return
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _unfinished(name: str) -> str:
    return f".{name}.unfinished"


def _lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a log, up to one that was cut off."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict) or line.keys() != set(KEYS[path.name]):
            raise ValueError(f"{path} must hold {', '.join(KEYS[path.name])} in each line, got {text!r}")
        lines.append(line)
    return lines
