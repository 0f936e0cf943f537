"""The results of the runs of a report, from their folders, and kept as JSON."""

import dataclasses
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from ..data import Source
from ..look import SCORES
from ..runs import RunFolder, differences, read_json
from ..tasks.patch import build_network
from ..text import data_title
from .plan import Key, Options, Planned, Protocol, Side

SAME = ("epochs", "batch_size", "learning_rate")  # in all runs of one table


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    row: str
    protocol: Protocol
    side: Side
    seed: int
    parameters: int
    train_errors: list[float]
    test_errors: list[float]
    test_accuracy: float
    images_per_second: float
    maps: dict[str, dict[str, float | None]]  # as in localisation.json
    seconds: float  # of training
    where: str

    @property
    def key(self) -> Key:
        """Which run it is."""
        return Key(self.row, self.protocol, self.side, self.seed)


@dataclass(frozen=True)
class Report:
    """A report: its options, the images as in a run's ``data.json``, its finished runs and the names of failed ones."""

    options: dict[str, Any]
    images: dict[str, Any]
    planned: int
    failed: list[str]
    outcomes: list[Outcome]

    def of(self, row: str, protocol: str, side: str = "ours") -> list[Outcome]:
        """The outcomes of a row, seed by seed."""
        return [one for one in self.outcomes if (one.row, one.protocol, one.side) == (row, protocol, side)]


def read_report(file: Path) -> Report:
    """Reads a results.json; raises ``ValueError`` for any other file, or none."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return Report(**values | {"outcomes": [Outcome(**outcome) for outcome in values["outcomes"]]})
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"expected the results.json of a report, got {file}: {error}") from error


def begin(options: Options, runs: list[Planned], source: Source, file: Path) -> Report:
    """A report with the results in ``file``, if there is one, which must be of the same options and images."""
    same = {name: getattr(options, name) for name in SAME}
    report = Report({"data": data_title(options.data), **same}, source.identity, 0, [], [])
    if file.is_file():
        kept = read_report(file)
        if differing := differences(kept.options | kept.images, same | source.identity):
            raise ValueError(f"--out must have no results of other options or images, got {file}: {differing}")
        report.outcomes.extend(kept.outcomes)
    keys = {*(run.key for run in runs), *(run.key for run in report.outcomes)}
    return dataclasses.replace(report, planned=len(keys))


def outcome_of(run: Planned, where: str) -> Outcome:
    """The result of a finished run, which was computed on ``where``."""
    history, data = RunFolder(run.path).history(), read_json(run.path / "data.json")
    network = nnx.eval_shape(lambda: build_network(run.config, *data["image_size"]))
    speeds = [metrics.images_per_second for metrics in history]
    start, end = data["train"]
    return Outcome(
        *run.key,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))),
        train_errors=[metrics.train_error for metrics in history],
        test_errors=[metrics.test_error for metrics in history],
        test_accuracy=history[-1].test_accuracy,
        images_per_second=statistics.median(speeds),
        maps=read_json(run.path / SCORES)["maps"],
        seconds=sum((end - start) / speed for speed in speeds),
        where=where,
    )
