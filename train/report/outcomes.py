"""What the runs of a report came to; kept as JSON."""

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .plan import Key, Side
from .rows import Protocol, RowName

Maps = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Outcome:
    """What one run came to.

    Attributes:
        row: of the table.
        protocol: how it was trained.
        side: ours, or PyTorch's.
        seed: its seed.
        parameters: how many numbers the network learns.
        train_errors: the mean loss of each epoch on the training images.
        test_errors: on the test images.
        test_accuracy: after the last epoch.
        images_per_second: of training, the median over the epochs.
        maps: the scores of each map, as in ``localisation.json``.
        seconds: that the run took, all tries together.
        where: what it computed on.
    """

    row: RowName
    protocol: Protocol
    side: Side
    seed: int
    parameters: int
    train_errors: list[float]
    test_errors: list[float]
    test_accuracy: float
    images_per_second: float
    maps: Maps
    seconds: float
    where: str

    @property
    def key(self) -> Key:
        """Which run of the report it is."""
        return Key(self.row, self.protocol, self.side, self.seed)

    @property
    def min_train_error(self) -> float:
        """The smallest over the epochs, which the tutorial reports."""
        return min(self.train_errors)

    @property
    def min_test_error(self) -> float:
        """The same on the test images."""
        return min(self.test_errors)

    def pointing(self, name: str = "class_activation") -> float | None:
        """The share of images with a patch in which the peak of a map lies in it; None without such a map."""
        return self.maps.get(name, {}).get("pointing")


@dataclass(frozen=True)
class Report:
    """A report's options and outcomes.

    Attributes:
        options: what was asked for; paths are the last part of theirs alone.
        images: what the images are, as in a run's ``data.json``.
        planned: how many runs belong to it.
        failed: the names of those that failed when they were last tried.
        outcomes: of those that are done.
    """

    options: dict[str, Any]
    images: dict[str, Any]
    planned: int
    failed: list[str]
    outcomes: list[Outcome]

    def of(self, row: str, protocol: str, side: str = "ours") -> list[Outcome]:
        """The outcomes of a row, seed by seed."""
        return [one for one in self.outcomes if (one.row, one.protocol, one.side) == (row, protocol, side)]


class Spread(NamedTuple):
    """Mean and standard deviation over seeds (of the sample, n - 1; None with fewer than two), and how many."""

    mean: float
    std: float | None
    count: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """The spread of values, those that are None left out; None without any.

    Example:
        >>> spread([1.0, 2.0, 3.0, None])
        Spread(mean=2.0, std=1.0, count=3)
    """
    numbers = [value for value in values if value is not None]
    if not numbers:
        return None
    return Spread(statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None, len(numbers))


def to_json(report: Report) -> str:
    """The report as JSON."""
    return json.dumps(dataclasses.asdict(report), indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Report:
    """The inverse of `to_json`.

    Raises:
        ValueError: not a report.
    """
    try:
        values = json.loads(text)
        outcomes = [Outcome(**outcome) for outcome in values.pop("outcomes")]
        return Report(outcomes=outcomes, **values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"text must be a report as JSON, got one without {error}") from error
