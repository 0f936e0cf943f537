"""Does the runs of a report, one after the other, and keeps a log of them."""

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from ..data import Source
from ..data.feed import DataError
from ..loop import NonFiniteError, StoppedError
from ..runs import CONFIG
from ..signals import Stop, status
from ..text import first_line
from .plan import Planned, words
from .where import where

LOG = "report.jsonl"

Train = Callable[[list[str]], int]


class Log:
    """A line per try at a run: which one, its exit status, how long it took, and where. Who is killed leaves none.

    Args:
        folder: of the report's runs.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG

    def lines(self) -> list[dict[str, Any]]:
        """The tries so far; a line that was cut off is none."""
        found = []
        for text in self._path.read_text().splitlines() if self._path.exists() else []:
            try:
                found.append(json.loads(text))
            except ValueError:
                continue
        return found

    def done(self) -> set[str]:
        """The names of the runs that came to their end."""
        return {line["run"] for line in self.lines() if line["status"] == 0}

    def failed(self) -> set[str]:
        """The names of those that failed when they were last tried."""
        last = {line["run"]: line["status"] for line in self.lines()}
        return {name for name, code in last.items() if 0 < code < status(0)}

    def add(self, run: Planned, *, code: int, seconds: float) -> None:
        """Appends a try."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = {"run": run.name, "status": code, "seconds": seconds, "where": where(run.side)}
        cut_off = self._path.exists() and not self._path.read_text().endswith("\n")
        with self._path.open("a") as file:
            file.write("\n" * cut_off + json.dumps(line) + "\n")


def is_done(run: Planned, done: set[str]) -> bool:
    """Whether a run came to its end, and its folder is still there."""
    return run.name in done and (run.path / "localisation.json").is_file()


def work(runs: list[Planned], source: Source, log: Log, train: Train, console: Console) -> int:
    """Does the runs that are not done; whether one fails is in the log.

    Args:
        runs: all of them.
        source: the images, for the twins.
        log: of the tries.
        train: ``python -m train`` as a function of its arguments.
        console: to say what goes on.

    Returns:
        The exit status of the signal that stopped the work, or 0.
    """
    done = log.done()
    with Stop() as stop:  # hears of a signal that a run had no more use for, too
        for number, run in enumerate(runs, start=1):
            if is_done(run, done):
                continue
            console.rule(f"{number} of {len(runs)}: {run.name}")
            began = time.perf_counter()
            code = train_ours(run, train) if run.side == "ours" else train_twin(run, source, console)
            log.add(run, code=code, seconds=time.perf_counter() - began)
            if stop.signal is not None:
                return status(stop.signal)
            jax.clear_caches()  # the next network shares no program with this one
            gc.collect()
    return 0


def train_ours(run: Planned, train: Train) -> int:
    """Begins a run of ours, or goes on with it; returns the exit status."""
    if (run.path / CONFIG).is_file():
        return train(["--resume", str(run.path), "--data", run.config.data])
    return train(words(run.config))


def train_twin(run: Planned, source: Source, console: Console) -> int:
    """The same for a twin."""
    from .twin import TwinRun  # PyTorch

    with Stop() as stop:
        try:
            TwinRun(run.config, source, lambda: stop.signal is not None).train(
                lambda metrics: console.print(
                    f"PyTorch, epoch {metrics.epoch}/{run.config.epochs}  train error {metrics.train_error:<9.4g} "
                    f"test error {metrics.test_error:<9.4g} accuracy {metrics.test_accuracy:.3f}  "
                    f"{metrics.images_per_second:.0f} images/s",
                    soft_wrap=True,
                    highlight=False,
                )
            )
        except StoppedError:
            return status(stop.signal or 0)
        except (NonFiniteError, DataError, OSError, ValueError, RuntimeError, MemoryError) as error:  # CUDA's, too
            console.print(f"error: {first_line(error)}", soft_wrap=True, highlight=False, markup=False)
            return 1
    return 0
