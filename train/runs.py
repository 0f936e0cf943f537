"""The folder of a run: its options, data and machine, and its logs, epoch by epoch and step by step."""

import dataclasses
import json
import os
import platform
import shlex
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import jax

from .config import PRESETS, Config, check
from .data import Source
from .devices import run_devices

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CONFIG, DATA, MACHINE, EPOCHS, STEPS = "config.json", "data.json", "machine.json", "metrics.jsonl", "steps.jsonl"
LOCK = ".lock"  # empty; never deleted, as another process may be about to lock it
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
JAX_SETTINGS = (
    "jax_default_prng_impl",
    "jax_enable_custom_prng",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_allow_f16_reductions",
    "jax_softmax_custom_jvp",
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_optimization_level",
    "jax_exec_time_optimization_effort",
)
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")


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


class RunFolder:
    """The files of a run in the folder ``path``; each line of a log is written at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BinaryIO | None = None

    def begin(self, config: Config, source: Source) -> None:
        """Creates the folder, which must be new or empty, and locks it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.hold()
            check_run_dir(config)  # again, now that no other process can begin
            self.write_json(DATA, source.identity)
            self.write_json(MACHINE, machine(config))
            self.write_json(CONFIG, vars(config))
        except OSError as error:
            raise ValueError(f"--run-dir must be a writable folder, got {self.path}: {error}") from error

    def hold(self) -> None:
        """Locks the folder until `close` or the end of this process, where the system has locks."""
        if fcntl is None:
            return
        self._lock = (self.path / LOCK).open("ab")  # for writing, as NFS locks nothing else
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = f"--run-dir or --resume must name a folder in which no other process trains, got {self.path}"
            raise ValueError(f"{told}, in which one does") from None
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
        return [EpochMetrics(**json.loads(line)) for line in _lines(self.path / EPOCHS)]

    def step_errors(self) -> list[float]:
        """The error of each training step so far."""
        return [json.loads(line)["error"] for line in _lines(self.path / STEPS)]

    def check_data(self, source: Source) -> None:
        """Raises ``ValueError`` where the run began with other data, naming what differs."""
        if differing := differences(read_json(self.path / DATA), source.identity):
            raise ValueError(f"{source.name} is not what the run in {self.path} began with: {differing}")

    def check_machine(self, config: Config) -> list[str]:
        """A note where the machine or versions differ from those at the run's start; older folders may not say.

        Raises ``ValueError`` for other settings of JAX.
        """
        began = read_json(self.path / MACHINE) if (self.path / MACHINE).exists() else {}
        now = {name: value for name, value in machine(config).items() if began.get(name, value) != value}
        settings = [
            f"{f'{name} unset' if began[name] is None else f'{name}={began[name]}'} (now {value})"
            for name, value in now.items()
            if name.isupper()
        ]
        if settings:
            raise ValueError(f"--resume {self.path} needs the settings that the run began with: {', '.join(settings)}")
        differing = differences(began, now)
        return [f"not bit-identical to a run on the machine where it began: {differing}"] if differing else []

    def go_back_to(self, epochs: int, steps: int) -> None:
        """Truncates the logs to the place of a checkpoint; raises ``ValueError`` where one ends before it."""
        counts = {self.path / EPOCHS: epochs, self.path / STEPS: steps}
        logs = {path: _lines(path) for path in counts}
        for path, lines in logs.items():
            if len(lines) < counts[path]:
                raise ValueError(f"{path} must have at least {counts[path]} lines, got {len(lines)}")
        for path, lines in logs.items():
            write_whole(path, "".join(lines[: counts[path]]))

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()


def differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Which values of a stored file differ from today's."""
    return "; ".join(f"{name} {then.get(name)} then, {now[name]} now" for name in now if now[name] != then.get(name))


def machine(config: Config) -> dict[str, Any]:
    """What a run's numbers depend on beside its options: devices that share a batch, versions, and settings of JAX.

    The settings, in capitals, are those that change random bits or rounding, by the variables that set them.
    """
    jax_settings = {name.upper(): getattr(jax.config, name, jax.config.values.get(name)) for name in JAX_SETTINGS}
    return {
        "devices": len(run_devices(config.batch_size, config.devices, config.token_devices)),
        "token_devices": config.token_devices,
        "kind": jax.devices()[0].device_kind,
        "processor": platform.machine(),
        **{name: version(name) for name in PACKAGES},
        **jax_settings,
        **{name: os.environ.get(name) or None for name in FLAGS},
    }


def read_config(path: Path) -> Config:
    """The options of the run in a folder; those that an earlier version did not write have their defaults."""
    file = path / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"there must be a run in {path}, got no {CONFIG if path.is_dir() else 'such folder'}")
    values = read_json(file)
    values.pop("workers", None)  # of an earlier version
    try:
        config = type(PRESETS[values.get("task", "patch")]["quick"])(**values)
        check(config)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} must hold the options of a run of this version, got: {error}") from None
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
    path = Path(config.run_dir)
    try:
        names = {file.name for file in path.iterdir()} if path.exists() else set()
    except OSError as error:
        raise ValueError(f"--run-dir must be a new or empty folder, got {path}: {error}") from error
    left = {name for name in names if name in (DATA, MACHINE) or name.startswith(".")}  # by a kill before the start
    if names - left:
        hint = f"; to continue the run in it: --resume {shlex.quote(str(path))}" if CONFIG in names else ""
        raise ValueError(f"--run-dir must be a new or empty folder, got {path}, which exists{hint}")
    return path


def write_whole(path: Path, text: str) -> None:
    """Writes a file completely or not at all, whatever happens to the process or to the power."""
    unfinished = path.with_name(f".{path.name}.unfinished")
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


def _lines(path: Path) -> list[str]:
    """The lines of a log, without one that was cut off by a kill."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]
