"""Trains the runs of a report, one after the other, and logs each attempt."""

import gc
import json
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from torch_ref.report.run import cpu_name, hardware

from ..data import Source
from ..data.feed import DataError
from ..loop import NonFiniteError, StoppedError
from ..runs import CONFIG
from ..show import epoch_line, say
from ..signals import Stop, status
from ..text import first_line
from ..training import main as train
from .plan import Planned, Side, words

LOG = "report.jsonl"
PACKAGES: dict[Side, tuple[str, ...]] = {"ours": ("jax", "flax", "optax"), "pytorch": ("torch",)}

# Starts a run, or continues it, and returns the exit status.
Trainer = Callable[[Planned, Source, Console], int]


class Log:
    """A line per attempt at a run: its name, exit status, duration and machine. A killed attempt leaves none."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG

    def lines(self) -> list[dict[str, Any]]:
        """The attempts so far, but for lines that were cut off."""
        found = []
        for text in self._path.read_text().splitlines() if self._path.exists() else []:
            try:
                found.append(json.loads(text))
            except ValueError:
                continue
        return found

    def done(self) -> set[str]:
        """The names of the finished runs."""
        return {line["run"] for line in self.lines() if line["status"] == 0}

    def failed(self) -> set[str]:
        """The names of the runs whose last attempt failed."""
        last = {line["run"]: line["status"] for line in self.lines()}
        return {name for name, code in last.items() if 0 < code < status(0)}

    def add(self, run: Planned, *, code: int, seconds: float) -> None:
        """Appends an attempt."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = {"run": run.name, "status": code, "seconds": seconds, "where": where(run.key.side)}
        cut_off = self._path.exists() and not self._path.read_text().endswith("\n")
        with self._path.open("a") as file:
            file.write("\n" * cut_off + json.dumps(line) + "\n")


def is_done(run: Planned, done: set[str]) -> bool:
    """Whether a run is finished and its folder still exists."""
    return run.name in done and (run.path / "localisation.json").is_file()


def work(runs: Sequence[Planned], source: Source, log: Log, trainers: dict[Side, Trainer], console: Console) -> int:
    """Trains the runs that are not finished; returns the exit status of the signal that stopped it, or 0."""
    done = log.done()
    with Stop() as stop:  # also catches a signal that came too late for a run
        for number, run in enumerate(runs, start=1):
            if is_done(run, done):
                continue
            console.rule(f"{number} of {len(runs)}: {run.name}")
            began = time.perf_counter()
            code = trainers[run.key.side](run, source, console)
            log.add(run, code=code, seconds=time.perf_counter() - began)
            if stop.signal is not None:
                return status(stop.signal)
            jax.clear_caches()  # type: ignore[no-untyped-call]  # the next network shares no program with this one
            gc.collect()
    return 0


def train_ours(run: Planned, source: Source, console: Console) -> int:
    """Trains one of our runs with ``python -m train``."""
    if (run.path / CONFIG).is_file():
        return train(["--resume", str(run.path), "--data", run.config.data])
    return train(words(run.config))


def train_twin(run: Planned, source: Source, console: Console) -> int:
    """Trains a PyTorch twin."""
    from ..twin import TwinRun  # PyTorch

    with Stop() as stop:
        try:
            twin = TwinRun(run.config, source, lambda: stop.signal is not None)
            epochs = run.config.epochs
            twin.train(lambda metrics: say(console, f"PyTorch, {epoch_line(metrics, epochs, source.unit)}"))
        except StoppedError:
            return status(stop.signal or 0)
        except (NonFiniteError, DataError, OSError, ValueError, RuntimeError, MemoryError) as error:
            say(console, f"error: {first_line(error)}")
            return 1
    return 0


TRAINERS: dict[Side, Trainer] = {"ours": train_ours, "pytorch": train_twin}


def where(side: Side) -> str:
    """The device and the versions of one side.

    Example:
        >>> where("ours").split("; ")[1].split()[0]
        'jax'
    """
    device = hardware() if side == "ours" else _torch_hardware()
    return f"{device}; {', '.join(f'{name} {version(name)}' for name in PACKAGES[side])}"


def _torch_hardware() -> str:
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{cpu_name()}, {torch.get_num_threads()} threads"
