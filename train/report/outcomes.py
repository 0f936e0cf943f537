"""The results of the runs of a report, collected from their folders and from other reports, and kept as JSON."""

import dataclasses
import json
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from ..config import PatchConfig
from ..runs import DATA, RunFolder, differences, read_json
from ..tasks.patch import build_network
from ..text import data_title
from .plan import Key, Options, Planned, Protocol, Side
from .work import Log, is_done

SAME = ("epochs", "article_epochs", "batch_size", "learning_rate")  # in all reports of one table


@dataclass(frozen=True)
class Outcome:
    """The result of a run; ``maps`` as in ``localisation.json``, ``seconds`` of all attempts together."""

    row: str
    protocol: Protocol
    side: Side
    seed: int
    parameters: int
    train_errors: list[float]
    test_errors: list[float]
    test_accuracy: float
    images_per_second: float
    maps: dict[str, dict[str, float | None]]
    seconds: float
    where: str

    @property
    def key(self) -> Key:
        """Which run it is."""
        return Key(self.row, self.protocol, self.side, self.seed)

    def pointing(self, name: str = "class_activation") -> float | None:
        """The share of images with a patch in which the peak of a map lies in it; None without such a map."""
        return self.maps.get(name, {}).get("pointing")


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


class Spread(NamedTuple):
    """Mean and standard deviation over seeds (of the sample, n - 1; None with fewer than two)."""

    mean: float
    std: float | None


def spread(values: Iterable[float | None]) -> Spread | None:
    """The spread of the values that are not None; None without any.

    Example:
        >>> spread([1.0, 2.0, 3.0, None])
        Spread(mean=2.0, std=1.0)
    """
    numbers = [value for value in values if value is not None]
    if not numbers:
        return None
    return Spread(statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None)


def to_json(report: Report) -> str:
    """The report as JSON."""
    return json.dumps(dataclasses.asdict(report), indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Report:
    """The inverse of `to_json`; raises ``ValueError`` where the text is no report."""
    try:
        values = json.loads(text)
        return Report(**values | {"outcomes": [Outcome(**outcome) for outcome in values["outcomes"]]})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"expected a report as JSON, got: {error}") from error


@dataclass(frozen=True)
class Known:
    """The runs of the reports that ``--known`` names, and their images; None without any report."""

    outcomes: dict[Key, Outcome]
    images: dict[str, Any] | None

    def check_images(self, images: dict[str, Any]) -> None:
        """Raises ``ValueError`` where the runs were trained on other images than these."""
        differing = differences(images if self.images is None else self.images, images)
        if differing:
            raise ValueError(f"--known must name reports on the same images, got: {differing}")


def read_known(options: Options) -> Known:
    """Reads the reports, of which the last counts where several hold a run.

    Raises:
        OSError: a file that cannot be read.
        ValueError: one that is no report, or has other options or images.
    """
    known = Known({}, None)
    for file in (Path(os.path.expanduser(name)) for name in options.known):
        try:
            report = from_json(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"--known must name the results.json of a report, got {file}: {error}") from error
        differing = differences(report.options, {name: getattr(options, name) for name in SAME})
        if differing:
            raise ValueError(f"--known must name reports with the same options, got {file}: {differing}")
        known.check_images(report.images)
        known = Known(known.outcomes | {run.key: run for run in report.outcomes}, report.images)
    return known


def collect(options: Options, runs: Sequence[Planned], log: Log, known: Known) -> Report:
    """Collects the finished runs; a run's own folder comes before other reports.

    Raises:
        ValueError: there are none, a file that cannot be read, or runs on different images.
    """
    found = {run.key: known.outcomes[run.key] for run in runs if run.key in known.outcomes}
    done, failed = log.done(), log.failed()
    ready = [run for run in runs if is_done(run, done)]
    if not ready and not found:
        names = ", ".join(run.name for run in runs if run.name in failed) or "none"
        raise ValueError(f"--runs must be a folder with finished runs, got {options.runs} without any; failed: {names}")
    images = known.images or read_json(ready[0].path / DATA)
    counts: dict[str, int] = {}
    for run in ready:
        if read_json(run.path / DATA) != images:
            first = "--known" if known.images else ready[0].path
            raise ValueError(f"all runs must have the same images, got others in {run.path} than in {first}")
        if run.key.row not in counts:
            counts[run.key.row] = parameters(run.config, *images["image_size"])
        found[run.key] = _outcome(run, counts[run.key.row], [line for line in log.lines() if line["run"] == run.name])
    shown: dict[str, Any] = {name: Path(getattr(options, name)).name for name in ("runs", "out")}
    shown |= {"data": data_title(options.data), "known": [Path(file).name for file in options.known]}
    return Report(
        options=dataclasses.asdict(options) | shown,
        images=images,
        planned=len(runs),
        failed=[run.name for run in runs if run.name in failed and run.key not in found],
        outcomes=[found[run.key] for run in runs if run.key in found],
    )


def _outcome(run: Planned, count: int, attempts: Sequence[dict[str, Any]]) -> Outcome:
    history = RunFolder(run.path).history()
    return Outcome(
        *run.key,
        parameters=count,
        train_errors=[metrics.train_error for metrics in history],
        test_errors=[metrics.test_error for metrics in history],
        test_accuracy=history[-1].test_accuracy,
        images_per_second=statistics.median(metrics.images_per_second for metrics in history),
        maps=read_json(run.path / "localisation.json")["maps"],
        seconds=sum(line["seconds"] for line in attempts),
        where=attempts[-1]["where"],
    )


def parameters(config: PatchConfig, height: int, width: int) -> int:
    """How many numbers a network learns."""
    network = nnx.eval_shape(lambda: build_network(config, height, width))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
