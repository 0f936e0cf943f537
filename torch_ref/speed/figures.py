"""A speed run: figures of blocks and networks with hardware, versions and load, to JSON and back."""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from .subjects import Subject
from .timing import is_busy

OURS = "ours"
WRITTEN, CHANNELS_LAST, COMPILED = "as written", "channels_last", "torch.compile"
FUSED, TUTORIAL = "fused attention", "tutorial's formula"
FORMS = (WRITTEN, CHANNELS_LAST, COMPILED, FUSED, TUTORIAL)  # of the twin


class Rates(NamedTuple):
    """What the machine can do, by the faster framework: a matrix product's operations and a copy's bytes per second."""

    operations: float
    bytes: float


@dataclass(frozen=True)
class Figure:
    """The times of one work.

    Attributes:
        name: of the subject, as batch and size are.
        work: "forward" (eval mode, no gradients), "forward + backward" (training mode) or "training step".
        seconds: medians, by column: "ours, 2 devices" or a form of the twin.
        first: of the first call, which compiles: ours and torch.compile's.
        memory: bytes that the subject's last work takes, by "ours" or form; None where the system does not tell.
        least: seconds that the work would take at the rates of the machine.
        notes: why a column is missing.
        load: cores that others kept busy meanwhile.
    """

    name: str
    batch: int
    size: tuple[int, int, int]
    work: str
    seconds: dict[str, float]
    first: dict[str, float]
    memory: dict[str, float | None]
    least: float
    notes: dict[str, str]
    load: float

    @property
    def key(self) -> tuple[Any, ...]:
        return self.name, self.batch, self.size, self.work

    @property
    def ours(self) -> float:
        """Our time with the most devices; NaN where there is none."""
        return [math.nan, *(time for column, time in self.seconds.items() if column not in FORMS)][-1]

    @property
    def best(self) -> float:
        """The time of PyTorch's fastest form; NaN where none could be timed."""
        return min((time for column, time in self.seconds.items() if column in FORMS), default=math.nan)

    @property
    def mark(self) -> str:
        return f"busy: load {self.load:.1f}" if is_busy(self.load) else ""


def no_figure(subject: Subject, work: str, why: str) -> Figure:
    """A figure that says why there is none."""
    return Figure(subject.name, subject.batch, subject.size, work, {}, {}, {}, 0.0, {OURS: why}, 0.0)


@dataclass(frozen=True)
class SpeedRun:
    """Figures with where they were taken; ``growth`` holds those of each of `AXES`."""

    platform: str
    hardware: str
    versions: dict[str, str]
    threads: int
    rates: Rates
    figures: list[Figure] = field(default_factory=list)
    growth: dict[str, list[Figure]] = field(default_factory=dict)

    @property
    def all_figures(self) -> list[Figure]:
        return [*self.figures, *(figure for figures in self.growth.values() for figure in figures)]


def update(kept: SpeedRun, new: SpeedRun) -> SpeedRun:
    """``new`` with the other figures of ``kept``, if they come from the same machine and versions."""
    if (kept.hardware, kept.versions, kept.threads) != (new.hardware, new.versions, new.threads):
        return new

    def both(old: list[Figure], figures: list[Figure]) -> list[Figure]:
        by_key = {figure.key: figure for figure in (*old, *figures)}
        return [by_key[key] for key in sorted(by_key)]

    axes = dict.fromkeys([*kept.growth, *new.growth])
    growth = {axis: both(kept.growth.get(axis, []), new.growth.get(axis, [])) for axis in axes}
    return replace(new, figures=both(kept.figures, new.figures), growth=growth)


def without_busy(run: SpeedRun) -> SpeedRun:
    """The figures that were taken on a quiet machine."""
    growth = {axis: [figure for figure in figures if not figure.mark] for axis, figures in run.growth.items()}
    return replace(run, figures=[figure for figure in run.figures if not figure.mark], growth=growth)


def to_json(run: SpeedRun) -> str:
    return json.dumps(asdict(run), indent=1) + "\n"


def from_json(text: str) -> SpeedRun:
    """The inverse of `to_json`.

    Raises:
        ValueError: not a speed run.
    """

    def figure(data: dict[str, Any]) -> Figure:
        return Figure(**{**data, "size": tuple(data["size"])})

    try:
        data = json.loads(text)
        growth = {axis: [figure(each) for each in figures] for axis, figures in data["growth"].items()}
        figures = [figure(each) for each in data["figures"]]
        return SpeedRun(**{**data, "rates": Rates(*data["rates"]), "figures": figures, "growth": growth})
    except (KeyError, TypeError) as error:
        raise ValueError(f"text must be a speed run as JSON, got an error on reading it: {error}") from error
