"""The batches of a run: from records that are on the device as a whole, or from a stream of decoded records.

Both give the same batches in the same order, so a streamed run computes what a resident one does. The records of a
step depend on its number alone: a run resumes anywhere.
"""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ..config import Config
from ..devices import Layout, usable_cores
from . import Source

STEPS = 2**40  # endless, for grain, which wants an end
RESIDENT_BYTES = 2**31  # of all copies together: those of 5,000 images of 96x96 on 15 devices
MOST_THREADS = 16  # that decode, each a batch ahead


class Fed(NamedTuple):
    """A batch of records on the device, before the task turns it into x and y."""

    inputs: jax.Array  # (n, ...), for the patch task images, uint8 (n, h, w, 3)
    places: jax.Array | None  # (b,), the batch's indices into the inputs, or None where these are the batch
    indices: jax.Array  # (b,), the batch's indices into the source
    real: np.ndarray  # (b,), False for what only fills up the last batch
    labels: jax.Array | None  # (b,), or None where the source has none

    @property
    def records(self) -> jax.Array:
        """The records of the batch, (b, ...)."""
        return self.inputs if self.places is None else self.inputs[self.places]


def eval_batches(images: range, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the indices (batch_size,) of each batch in file order, and which of them are real, not filling.

    Example:
        >>> [(batch.tolist(), real.tolist()) for batch, real in eval_batches(range(5, 8), 2)]
        [([5, 6], [True, True]), ([7, 7], [True, False])]
    """
    for start in range(images.start, images.stop, batch_size):
        places = np.arange(start, start + batch_size, dtype=np.int32)
        yield np.minimum(places, images.stop - 1), places < images.stop


def check_batch_size(batch_size: int, images: range, unit: str = "images") -> None:
    """Raises ``ValueError`` where the training images, or what ``unit`` says, do not fill one batch."""
    if batch_size > len(images):
        raise ValueError(f"--batch-size must be at most the number of training {unit}, {len(images)}, got {batch_size}")


@functools.lru_cache(maxsize=2)  # reading ahead is in two epochs at once
def train_batches(records: range, config: Config, epoch: int) -> np.ndarray:
    """The indices (steps, batch_size) of an epoch's batches; it drops the last, incomplete one.

    Example:
        >>> train_batches(range(5), Config(batch_size=2, shuffle=False), 0).tolist()
        [[0, 1], [2, 3]]
    """
    order, size = np.arange(records.start, records.stop, dtype=np.int32), config.batch_size
    order = np.random.default_rng([config.seed, epoch]).permutation(order) if config.shuffle else order
    return order[: len(order) // size * size].reshape(-1, size)


class Feed:
    """The batches of a source.

    A resident one has all records on each device, and a batch is a list of indices. With ``streamed`` each batch
    brings its own records, which threads decode during the steps before it: decoders release the GIL. Each process
    decodes what its devices need.
    """

    def __init__(self, source: Source, config: Config, layout: Layout, *, streamed: bool) -> None:
        self._source, self._config, self._layout, self.streamed = source, config, layout, streamed
        self._batches: Generator[np.ndarray, None, None] | None = None
        self._next = 0  # the step that the next batch of a stream is for
        self._order = functools.partial(train_batches, source.train, config)
        self._real = np.ones(config.batch_size, np.bool_)
        if streamed:
            _import_grain()  # fails before a run folder is created
        else:
            self._inputs: Any = layout.copy(source.read(slice(None)))

    def train(self, epoch: int, first: int, last: int | None = None) -> Iterator[Fed]:
        """The training batches of an epoch from number ``first`` up to ``last``, by default to the end."""
        batches = self._order(epoch)
        count = len(batches)
        start = epoch * count + first
        if self.streamed and (self._batches is None or self._next != start):  # else the threads go on
            self.close()
            own = self._layout.own(self._config.batch_size)
            steps = range(start, STEPS)
            read = decode(self._source.records, lambda step: self._order(step // count)[step % count, own], steps)
            self._next, self._batches = start, read
        for indices in batches[first:last]:
            inputs = next(self._batches) if self._batches else None
            self._next += 1
            yield self._fed(inputs, indices, self._real)

    def train_whole(self, epoch: int) -> Fed:
        """All training batches of an epoch of a resident source: places, indices and labels are (b, steps)."""
        return self._fed(None, self._order(epoch).T, self._real)

    def test(self) -> Iterator[Fed]:
        """The test batches, in file order."""
        batches = list(eval_batches(self._source.test, self._config.batch_size))
        if not self.streamed:
            yield from (self._fed(None, *batch) for batch in batches)
            return
        own = self._layout.own(self._config.batch_size)
        indices = [batch[own] for batch, _ in batches]
        with contextlib.closing(decode(self._source.records, indices.__getitem__, range(len(batches)))) as decoded:
            for inputs, batch in zip(decoded, batches, strict=True):
                yield self._fed(inputs, *batch)

    def close(self) -> None:
        """Ends the threads, if there are any."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _fed(self, inputs: np.ndarray | None, indices: np.ndarray, real: np.ndarray) -> Fed:
        cut, labels = self._layout.cut, self._source.labels
        places = cut(indices)
        labels = None if labels is None else cut(labels[indices])
        if inputs is None:
            return Fed(self._inputs, places, places, real, labels)
        return Fed(self._layout.join(inputs, len(indices)), None, places, real, labels)


def open_feed(source: Source, config: Config, layout: Layout) -> Feed:
    """The feed for a source: resident if all devices' copies of it, maybe in the same memory, are small."""
    return Feed(source, config, layout, streamed=source.size * layout.devices > RESIDENT_BYTES)


def decode(records: Any, indices: Callable[[int], np.ndarray], steps: range) -> Generator[np.ndarray, None, None]:
    """Yields the records with the ``indices`` (b,) of each of the steps, decoded ahead; close it when done."""
    grain, threads = _import_grain(), min(usable_cores(), MOST_THREADS)
    data = grain.MapDataset.range(steps.start, steps.stop)
    data = data.map(lambda step: np.stack([records[index] for index in indices(step).tolist()]))
    batches = iter(data.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)))
    try:
        yield from batches
    finally:
        batches.close()


def _import_grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise ValueError("streaming needs grain, got none; install it with: pip install -e '.[train]'") from error
    return grain
