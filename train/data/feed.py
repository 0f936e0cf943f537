"""Where a run's batches come from: records that lie on the device whole, or a stream of them."""

import contextlib
import itertools
import time
from collections.abc import Generator, Iterator
from typing import NamedTuple, Protocol

import jax
import numpy as np

from ..config import Config
from ..devices import Layout
from . import Source
from .batches import eval_batches, train_batches
from .stream import Stream


class Fed(NamedTuple):
    """A batch as the source has it, on the device, before its task makes x and y of it.

    Attributes:
        inputs: (n, ...), for the patch task images, uint8 (n, h, w, 3).
        places: (b,), where in ``inputs`` those of the batch lie.
        indices: (b,), of the batch's records in their source.
        real: (b,), False for what only fills up the batch.
        labels: (b,), where the source has them, else None.
    """

    inputs: jax.Array
    places: jax.Array
    indices: jax.Array
    real: np.ndarray
    labels: jax.Array | None


class Feed(Protocol):
    """The batches of a run; those of a training epoch start anywhere, the same as if they had started at 0.

    Attributes:
        streams: whether batches come from elsewhere while steps are taken.
        waited: seconds for which the run has waited for training batches that were not on the device already.
    """

    streams: bool

    @property
    def waited(self) -> float: ...

    def train(self, epoch: int, first: int) -> Iterator[Fed]:
        """The training batches of an epoch from number ``first`` on."""

    def test(self) -> Iterator[Fed]:
        """The test batches, in file order."""

    def close(self) -> None:
        """Ends whatever reads ahead."""


class ResidentFeed:
    """All records on each device; a batch is a list of their indices."""

    streams = False
    waited = 0.0

    def __init__(self, source: Source, config: Config, layout: Layout) -> None:
        self._source, self._config, self._layout = source, config, layout
        self._inputs = layout.copy(source.inputs)

    def train(self, epoch: int, first: int) -> Iterator[Fed]:
        """The training batches of an epoch from number ``first`` on."""
        config = self._config
        batches = train_batches(
            self._source.train, config.batch_size, shuffle=config.shuffle, seed=config.seed, epoch=epoch
        )
        for number, indices in enumerate(batches):
            if number >= first:
                yield self._fed(indices, np.ones(len(indices), np.bool_))

    def test(self) -> Iterator[Fed]:
        """The test batches, in file order."""
        for indices, real in eval_batches(self._source.test, self._config.batch_size):
            yield self._fed(indices, real)

    def close(self) -> None:
        """Nothing reads ahead."""

    def _fed(self, indices: np.ndarray, real: np.ndarray) -> Fed:
        cut = self._layout.cut(indices)
        return Fed(self._inputs, cut, cut, real, _labels(self._source, indices, self._layout))


class StreamedFeed:
    """Each batch comes with its own records, decoded by worker processes while the steps before it run."""

    streams = True

    def __init__(self, source: Source, config: Config, layout: Layout) -> None:
        self._stream = Stream(
            source, config.batch_size, seed=config.seed, shuffle=config.shuffle, workers=config.workers
        )
        self._source, self._layout = source, layout
        self._places = layout.cut(np.arange(config.batch_size, dtype=np.int32))
        self._next, self._travelled = 0, 0.0
        self._batches: Generator[tuple[np.ndarray, np.ndarray], None, None] | None = None

    @property
    def waited(self) -> float:
        """Seconds for which the run has waited for training batches: to be decoded, and to reach the device."""
        return self._stream.waited + self._travelled

    def train(self, epoch: int, first: int) -> Iterator[Fed]:
        """The training batches of an epoch from number ``first`` on."""
        start = epoch * self._stream.steps + first
        if self._batches is None or self._next != start:  # else the workers go on from one epoch to the next
            self.close()
            self._next, self._batches = start, self._stream.batches(start)
        for inputs, indices in itertools.islice(self._batches, self._stream.steps - first):
            self._next += 1
            began = time.perf_counter()
            fed = self._fed(inputs, indices, np.ones(len(indices), np.bool_))
            jax.block_until_ready(fed.inputs)  # nothing else is under way: the step before has given its loss
            self._travelled += time.perf_counter() - began
            yield fed

    def test(self) -> Iterator[Fed]:
        """The test batches, in file order."""
        with contextlib.closing(self._stream.tests()) as batches:
            for inputs, indices, real in batches:
                yield self._fed(inputs, indices, real)

    def close(self) -> None:
        """Ends the workers."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _fed(self, inputs: np.ndarray, indices: np.ndarray, real: np.ndarray) -> Fed:
        cut, labels = self._layout.cut, _labels(self._source, indices, self._layout)
        return Fed(cut(inputs), self._places, cut(indices), real, labels)


def open_feed(source: Source, config: Config, layout: Layout) -> Feed:
    """The feed that suits a source: its records on the devices if they are few enough, with all their copies."""
    resident = source.resident and source.size <= layout.most
    return (ResidentFeed if resident else StreamedFeed)(source, config, layout)


def _labels(source: Source, indices: np.ndarray, layout: Layout) -> jax.Array | None:
    return None if source.labels is None else layout.cut(source.labels[indices])
