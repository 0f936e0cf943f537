"""Arrays with labels, for the classification tasks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..text import printable
from .npz import load_arrays
from .source import FEWEST, Source

INPUTS, LABELS = "inputs", "labels"  # in an archive


class Kind(NamedTuple):
    """The records of a task.

    Attributes:
        unit: their name, in the plural.
        axes: of the array of all records; the last one is that of the channels or sensors.
        centred: whether normalisation subtracts each channel's mean, or scales only.
    """

    unit: str
    axes: str
    centred: bool


class Labelled(Source):
    """Records in file order, each with its class; the first 80 % are for training, the last 20 % for testing.

    Args:
        name: for messages.
        kind: of the records.
        inputs: numbers (n, ..., c).
        labels: (n,), whole numbers from 0 without gaps, or the classes' names.
        names: of the classes; by default those in ``labels``, sorted, or the numbers.

    Attributes:
        records: the inputs in float32, normalised by the statistics of the training records.
        labels: int32 (n,).
        normalisation: the shift and scale of each channel.

    Raises:
        ValueError: wrong shapes, values that are not finite in float32, invalid labels, fewer than 5 records, or a
            class without training records.

    Example:
        >>> kind = Kind("windows", "n time sensor", centred=True)
        >>> windows = Labelled("mine", kind, np.ones((10, 64, 6)), np.array(["run", "walk"] * 5))
        >>> windows.train, windows.test, windows.names, windows.described
        (range(0, 8), range(8, 10), ('run', 'walk'), 'windows of 64x6 in 2 classes')
    """

    labels: np.ndarray

    def __init__(
        self, name: str, kind: Kind, inputs: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None
    ) -> None:
        self.name, self.unit, count = name, kind.unit, len(inputs)
        inputs = _as_inputs(name, kind, inputs)
        self.labels, values = numbered(name, kind.unit, labels, count)
        self.names = tuple(printable(str(value)) for value in (values if names is None else names))
        self.classes = len(values)
        self.train, self.test = range(count * 4 // 5), range(count * 4 // 5, count)
        for part, which in ((self.train, "first 80 %"), (self.test, "last 20 %")):
            there = self.labels[part.start : part.stop]
            missing = ", ".join(name for number, name in enumerate(self.names) if number not in there)
            lacking = f"{name}: the {which} have no {self.unit} of class {missing}; shuffle them if they are sorted"
            if missing and part is self.train:
                raise ValueError(lacking)
            self.notes = (lacking,) if missing else ()
        self.normalisation = shift, scale = _normalisation(inputs[: self.train.stop], centred=kind.centred)
        self.records = (inputs - shift) / scale
        self.identity = self.identify(inputs, self.labels, shape=list(inputs.shape[1:]), classes=self.classes)

    @property
    def described(self) -> str:
        """The kind, shape and classes of the records, for messages."""
        return f"{self.unit} of {'x'.join(map(str, self.records.shape[1:]))} in {self.classes} classes"


def numbered(name: str, unit: str, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the classes of ``count`` records, int32 (n,), and the classes, sorted, for names or numbers."""
    labels = np.char.decode(labels) if labels.dtype.kind == "S" else labels
    values, numbers = np.unique(labels, return_inverse=True)
    named = labels.dtype.kind == "U" or np.array_equal(values, np.arange(len(values)))
    if labels.shape != (count,) or count < FEWEST or len(values) < 2 or not named:
        shown = ", ".join(map(str, values[:8])) + ", ..." * (len(values) > 8)
        raise ValueError(
            f"{name}: {LABELS} must be one for each of the {count} {unit}, at least {FEWEST}: whole numbers "
            f"from 0 without gaps, or names, of at least 2 classes, got {labels.dtype} {labels.shape} of {shown}"
        )
    return numbers.astype(np.int32), values.astype(int) if labels.dtype.kind == "f" else values


def open_labelled(data: str, kind: Kind, synthetic: Any) -> Labelled:
    """Opens the records that ``--data`` names.

    Args:
        data: ``synthetic``, or ``npz:PATH``, an archive with ``inputs`` (n, ..., c) and ``labels`` (n,).
        kind: of the records.
        synthetic: generates inputs, labels and the classes' names.
    """
    start, _, path = data.partition(":")
    if data == "synthetic":
        return Labelled(data, kind, *synthetic())
    if start != "npz" or not path:
        raise ValueError(f"--data must be synthetic or npz:PATH for {kind.unit}, got {data!r}")
    arrays = load_arrays(path, {INPUTS, LABELS})
    return Labelled(printable(data), kind, arrays[INPUTS], arrays[LABELS])


def _as_inputs(name: str, kind: Kind, inputs: np.ndarray) -> np.ndarray:
    axes = kind.axes.split()
    if inputs.dtype.kind not in "fiu" or inputs.ndim != len(axes) or 0 in inputs.shape[1:]:
        raise ValueError(
            f"{name}: {INPUTS} must be real or whole numbers ({', '.join(axes)}), got {inputs.dtype} {inputs.shape}"
        )
    with np.errstate(over="ignore"):
        narrow = inputs.astype(np.float32)
    broken = ~np.isfinite(narrow).all(tuple(range(1, narrow.ndim)))
    if broken.any():
        raise ValueError(
            f"{name}: {INPUTS} must be finite in float32, got NaN or infinity in {broken.sum()} of {len(inputs)} "
            f"{kind.unit}, first in number {np.argmax(broken)}"
        )
    return narrow


def _normalisation(inputs: np.ndarray, *, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale of each channel, (c,) in float32; a constant channel is not scaled."""
    # One channel at a time: all squares in float64 at once would take twice the memory of the inputs.
    channels = [inputs[..., c] for c in range(inputs.shape[-1])]
    axes = tuple(range(inputs.ndim - 1))
    shift = np.asarray(np.mean(inputs, axes, dtype=np.float64) if centred else np.zeros(len(channels)))
    scale = np.array([np.sqrt(np.mean(np.square(x - m))) for x, m in zip(channels, shift, strict=True)])
    return shift.astype(np.float32), np.where(scale > 0, scale, 1).astype(np.float32)
