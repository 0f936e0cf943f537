"""Arrays with labels, for the classification tasks."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..text import printable
from . import source as images
from .npz import load_arrays
from .source import FEWEST

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


class Labelled:
    """Records in file order, each with its class; the first 80 % are for training, the last 20 % for testing.

    Args:
        name: for messages.
        kind: of the records.
        inputs: numbers (n, ..., c).
        labels: (n,), whole numbers from 0 without gaps.
        names: of the classes, by default their numbers.

    Attributes:
        records: the inputs in float32, normalised by the statistics of the training records.
        labels: int32 (n,).
        normalisation: the shift and scale of each channel.
        notes: what the user should know about the data, one line each.

    Raises:
        ValueError: wrong shapes, values that are not finite in float32, invalid labels, fewer than 5 records, or a
            class without training records.

    Example:
        >>> kind = Kind("windows", "n time sensor", centred=True)
        >>> windows = Labelled("mine", kind, np.ones((10, 64, 6)), np.arange(10) % 2)
        >>> windows.train, windows.test, windows.classes, windows.described
        (range(0, 8), range(8, 10), 2, 'windows of 64x6 in 2 classes')
    """

    def __init__(
        self, name: str, kind: Kind, inputs: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None
    ) -> None:
        self.name, self.kind, self.unit = name, kind, kind.unit
        inputs = _as_inputs(name, kind, inputs)
        self.labels, self.classes = _as_labels(name, labels)
        if len(inputs) != len(self.labels):
            raise ValueError(
                f"{name}: {LABELS} must be {len(inputs)}, one for each of the {self.unit}, got {len(labels)}"
            )
        if len(inputs) < FEWEST:
            raise ValueError(f"{name}: at least {FEWEST} {self.unit} are needed, got {len(inputs)}")
        count = len(inputs)
        self.train, self.test = range(count * 4 // 5), range(count * 4 // 5, count)
        self.names = tuple(map(str, range(self.classes))) if names is None else tuple(names)
        self.notes = self._check_split()
        self._digest = hashlib.sha256(np.ascontiguousarray(inputs).data)
        self._digest.update(self.labels.data)
        self.normalisation = shift, scale = _normalisation(inputs[: self.train.stop], centred=kind.centred)
        self.records: np.ndarray = (inputs - shift) / scale

    def _check_split(self) -> tuple[str, ...]:
        train, test = (np.unique(self.labels[part.start : part.stop]) for part in (self.train, self.test))
        unseen, untested = (np.setdiff1d(np.arange(self.classes), part) for part in (train, test))
        if len(unseen):
            raise ValueError(
                f"{self.name}: the training {self.unit}, the first 80 %, must have every class, got none of "
                f"{_listed(unseen)}; if they are sorted by class, shuffle them first"
            )
        if not len(untested):
            return ()
        return (
            f"{self.name}: the test {self.unit}, the last 20 %, have none of class {_listed(untested)}; if they are "
            "sorted by class, shuffle them first",
        )

    @property
    def described(self) -> str:
        """The kind, shape and classes of the records, for messages."""
        return f"{self.unit} of {'x'.join(map(str, self.records.shape[1:]))} in {self.classes} classes"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """A fingerprint of the data for JSON."""
        return {
            self.unit: len(self.records),
            "train": [self.train.start, self.train.stop],
            "test": [self.test.start, self.test.stop],
            "shape": list(self.records.shape[1:]),
            "classes": self.classes,
            "digest": self._digest.hexdigest(),
        }

    @property
    def size(self) -> int:
        """The bytes of all records."""
        return self.records.nbytes

    @property
    def resident(self) -> bool:
        """Whether the records are few enough to stay on the device."""
        return self.size <= images.RESIDENT_BYTES

    @property
    def inputs(self) -> np.ndarray:
        """What a `resident` source puts on the device."""
        return self.records


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
    name = printable(data)
    arrays = load_arrays(name, path, {INPUTS, LABELS})
    if not {INPUTS, LABELS} <= arrays.keys():
        raise ValueError(f"{name}: the archive must hold {INPUTS} and {LABELS}, got {', '.join(arrays) or 'nothing'}")
    return Labelled(name, kind, arrays[INPUTS], arrays[LABELS])


def _as_inputs(name: str, kind: Kind, inputs: np.ndarray) -> np.ndarray:
    if inputs.dtype.kind not in "fiu":
        raise ValueError(f"{name}: {INPUTS} must be real or whole numbers, got {inputs.dtype}")
    if inputs.ndim != len(kind.axes.split()) or 0 in inputs.shape[1:]:
        axes = ", ".join(kind.axes.split())
        raise ValueError(f"{name}: {INPUTS} must have shape ({axes}), got {inputs.shape}")
    with np.errstate(over="ignore"):
        narrow = inputs.astype(np.float32)
    broken = ~np.isfinite(narrow).all(tuple(range(1, narrow.ndim)))
    if broken.any():
        first = int(np.argmax(broken))
        raise ValueError(
            f"{name}: {INPUTS} must be finite in float32, got NaN or infinity in {broken.sum()} of {len(inputs)} "
            f"{kind.unit}, first in number {first}"
        )
    return narrow


def _as_labels(name: str, labels: np.ndarray) -> tuple[np.ndarray, int]:
    if labels.ndim != 1 or labels.dtype.kind not in "fiu":
        raise ValueError(f"{name}: {LABELS} must be whole numbers with one axis, got {labels.dtype} of {labels.shape}")
    broken = ~np.isfinite(labels) | (labels != np.floor(labels))
    if broken.any():
        raise ValueError(f"{name}: {LABELS} must be whole numbers, got {labels[broken][0]}")
    values = np.unique(labels)
    if len(values) < 2:
        got = f"only class {_listed(values)}" if len(values) else "no labels"
        raise ValueError(f"{name}: {LABELS} must name at least 2 classes, got {got}")
    if not np.array_equal(values, np.arange(len(values))):
        raise ValueError(
            f"{name}: {LABELS} must be the numbers from 0 to {len(values) - 1} for {len(values)} classes, without "
            f"gaps, got {_listed(values)}"
        )
    return labels.astype(np.int32), len(values)


def _normalisation(inputs: np.ndarray, *, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale of each channel, (c,) in float32; a constant channel is not scaled."""
    # One channel at a time: all squares in float64 at once would take twice the memory of the inputs.
    channels = [inputs[..., c] for c in range(inputs.shape[-1])]
    shift = np.zeros(len(channels))
    if centred:
        shift = np.asarray(np.mean(inputs, tuple(range(inputs.ndim - 1)), dtype=np.float64))
    scale = np.array([np.sqrt(np.mean(np.square(x - m))) for x, m in zip(channels, shift, strict=True)])
    return shift.astype(np.float32), np.where(scale > 0, scale, 1).astype(np.float32)


def _listed(values: np.ndarray, most: int = 8) -> str:
    shown = [f"{value:g}" for value in values[:most]]
    return ", ".join([*shown, "..."] if len(values) > most else shown) or "nothing"
