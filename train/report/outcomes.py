"""The results of the runs of a report, from their folders, the log and other reports, and kept as JSON."""

import dataclasses
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from ..runs import DATA, RunFolder, differences, read_json
from ..signals import status
from ..tasks.patch import build_network
from ..text import data_title
from .plan import Key, Options, Planned, Protocol, Side

LOG = "report.jsonl"  # a line per attempt at a run; a killed attempt leaves none
SAME = ("epochs", "article_epochs", "batch_size", "learning_rate")  # in all reports of one table

Attempts = dict[str, list[dict[str, Any]]]  # by the run's name: exit status, seconds, and what it computed on


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
    seconds: float  # of all attempts together
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


def to_json(report: Report) -> str:
    """The report as JSON."""
    return json.dumps(dataclasses.asdict(report), indent=1, allow_nan=False) + "\n"


def read_report(file: Path) -> Report:
    """Reads a results.json; raises ``ValueError`` for any other file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return Report(**values | {"outcomes": [Outcome(**outcome) for outcome in values["outcomes"]]})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"expected the results.json of a report, got {file}: {error}") from error


class Known(NamedTuple):
    """The runs in the reports of ``--known``, of which the last counts where several hold a run, and their images."""

    outcomes: dict[Key, Outcome]
    images: dict[str, Any] | None

    def check_images(self, images: dict[str, Any]) -> None:
        """Raises ``ValueError`` where the runs were trained on other images than these."""
        if self.images is not None and (differing := differences(self.images, images)):
            raise ValueError(f"--known must name reports on the same images, got: {differing}")


def read_known(options: Options) -> Known:
    """Reads the reports of ``--known``, which must have the same options and images."""
    known = Known({}, None)
    for file in options.known:
        report = read_report(Path(os.path.expanduser(file)))
        if differing := differences(report.options, {name: getattr(options, name) for name in SAME}):
            raise ValueError(f"--known must name reports with the same options, got {file}: {differing}")
        known.check_images(report.images)
        known = Known(known.outcomes | {run.key: run for run in report.outcomes}, report.images)
    return known


def read_log(folder: Path) -> Attempts:
    """The attempts so far, but for lines that were cut off."""
    attempts: Attempts = {}
    for text in (folder / LOG).read_text().splitlines() if (folder / LOG).exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        attempts.setdefault(line["run"], []).append(line)
    return attempts


def log_attempt(folder: Path, line: dict[str, Any]) -> None:
    """Appends an attempt to the log."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LOG
    cut_off = file.exists() and not file.read_text().endswith("\n")
    with file.open("a") as log:
        log.write("\n" * cut_off + json.dumps(line) + "\n")


def is_done(run: Planned, attempts: Attempts) -> bool:
    """Whether a run is finished and its folder still exists."""
    done = any(line["status"] == 0 for line in attempts.get(run.name, []))
    return done and (run.path / "localisation.json").is_file()


def collect(options: Options, runs: Sequence[Planned], known: Known) -> Report:
    """Collects the finished runs; a run's own folder comes before other reports."""
    attempts, found = read_log(Path(options.runs)), dict(known.outcomes)
    failed = [run for run in runs if run.name in attempts and 0 < attempts[run.name][-1]["status"] < status(0)]
    ready = [run for run in runs if is_done(run, attempts)]
    if not ready and not any(run.key in found for run in runs):
        names = ", ".join(run.name for run in failed) or "none"
        raise ValueError(f"--runs must be a folder with finished runs, got {options.runs} without any; failed: {names}")
    images = known.images or read_json(ready[0].path / DATA)
    for run in ready:
        if differing := differences(images, read_json(run.path / DATA)):
            raise ValueError(f"all runs must have the same images, got others in {run.path}: {differing}")
        found[run.key] = _outcome(run, images["image_size"], attempts[run.name])
    shown: dict[str, Any] = {name: Path(getattr(options, name)).name for name in ("runs", "out")}
    shown |= {"data": data_title(options.data), "known": [Path(file).name for file in options.known]}
    return Report(
        options=dataclasses.asdict(options) | shown,
        images=images,
        planned=len(runs),
        failed=[run.name for run in failed if run.key not in found],
        outcomes=[found[run.key] for run in runs if run.key in found],
    )


def _outcome(run: Planned, size: Sequence[int], attempts: Sequence[dict[str, Any]]) -> Outcome:
    history = RunFolder(run.path).history()
    network = nnx.eval_shape(lambda: build_network(run.config, *size))
    return Outcome(
        *run.key,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))),
        train_errors=[metrics.train_error for metrics in history],
        test_errors=[metrics.test_error for metrics in history],
        test_accuracy=history[-1].test_accuracy,
        images_per_second=statistics.median(metrics.images_per_second for metrics in history),
        maps=read_json(run.path / "localisation.json")["maps"],
        seconds=sum(line["seconds"] for line in attempts),
        where=attempts[-1]["where"],
    )
