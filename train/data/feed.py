"""The batches of a run: from records that are on the device as a whole, or from a stream of decoded records.

Both give the same batches in the same order, so a streamed run computes what a resident one does. The records of a
step depend on its number alone: a run resumes anywhere, with any number of workers.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

import jax
import numpy as np

from ..config import Config
from ..devices import Layout, usable_cores
from ..signals import SIGNALS
from . import Source
from .source import DataError as DataError
from .source import as_data_errors

STEPS = 2**40  # endless, for grain, which wants a length
THREADS = 4  # per process, for decoding
AHEAD = 4  # batches that each process decodes ahead


class Fed(NamedTuple):
    """A batch of records on the device, before the task turns it into x and y.

    Attributes:
        inputs: (n, ...), for the patch task images, uint8 (n, h, w, 3).
        places: (b,), the batch's indices into ``inputs``.
        indices: (b,), the batch's indices into the source.
        real: (b,), False for what only fills up the last batch.
        labels: (b,), or None where the source has none.
    """

    inputs: jax.Array
    places: jax.Array
    indices: jax.Array
    real: np.ndarray
    labels: jax.Array | None


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


@dataclass(frozen=True)
class Plan:
    """The indices (b,) of each training step's records, epoch after epoch without end."""

    records: range
    batch_size: int
    shuffle: bool
    seed: int

    @property
    def steps(self) -> int:
        """The number of steps per epoch, which drops the last, incomplete batch."""
        return len(self.records) // self.batch_size

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, self.steps)
        return order_of(self, epoch)[place * self.batch_size : (place + 1) * self.batch_size]


@functools.lru_cache(maxsize=2)  # reading ahead is in two epochs at once
def order_of(plan: Plan, epoch: int) -> np.ndarray:
    """The indices of all training records in the order of an epoch."""
    order = np.arange(plan.records.start, plan.records.stop, dtype=np.int32)
    return np.random.default_rng([plan.seed, epoch]).permutation(order) if plan.shuffle else order


class Feed:
    """The batches of a source.

    A resident one has all records on each device, and a batch is a list of indices. With ``streamed`` each batch
    brings its own records, which worker processes decode during the steps before it.
    """

    def __init__(self, source: Source, config: Config, layout: Layout, *, streamed: bool) -> None:
        self._source, self._layout, self._streamed = source, layout, streamed
        self._plan = Plan(source.train, config.batch_size, config.shuffle, config.seed)
        self._workers = default_workers() if config.workers is None else config.workers
        self._batches: Generator[np.ndarray, None, None] | None = None
        self._next = 0  # the step that the next batch of a stream is for
        if streamed:
            _import_grain()  # fails before a run folder is created
        else:
            self._inputs: Any = layout.copy(source.read(slice(None)))

    def train(self, epoch: int, first: int) -> Iterator[Fed]:
        """The training batches of an epoch, beginning with number ``first``."""
        start, real = epoch * self._plan.steps + first, np.ones(self._plan.batch_size, np.bool_)
        if self._streamed and (self._batches is None or self._next != start):  # else the workers go on
            self.close()
            self._next, self._batches = start, decode(self._source.records, self._plan, start, self._workers)
        for step in range(start, start + self._plan.steps - first):
            inputs = next(self._batches) if self._batches else None
            self._next += 1
            yield self._fed(inputs, self._plan[step], real)

    def test(self) -> Iterator[Fed]:
        """The test batches, in file order."""
        batches = list(eval_batches(self._source.test, self._plan.batch_size))
        if not self._streamed:
            yield from (self._fed(None, *batch) for batch in batches)
            return
        with contextlib.closing(decode(self._source.records, [indices for indices, _ in batches])) as decoded:
            for inputs, batch in zip(decoded, batches, strict=True):
                yield self._fed(inputs, *batch)

    def close(self) -> None:
        """Ends the workers, if there are any."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _fed(self, inputs: np.ndarray | None, indices: np.ndarray, real: np.ndarray) -> Fed:
        cut, labels = self._layout.cut, self._source.labels
        places = cut(indices)
        labels = None if labels is None else cut(labels[indices])
        if inputs is None:
            return Fed(self._inputs, places, places, real, labels)
        return Fed(cut(inputs), cut(np.arange(len(indices), dtype=np.int32)), places, real, labels)


def open_feed(source: Source, config: Config, layout: Layout) -> Feed:
    """The feed for a source: resident if all devices' copies of it fit into memory."""
    return Feed(source, config, layout, streamed=not source.resident or source.size > layout.most)


def decode(records: Any, plan: Any, first: int = 0, workers: int = 0) -> Generator[np.ndarray, None, None]:
    """Yields the records of each step of a plan, beginning with step ``first``, decoded ahead; close it when done.

    Args:
        records: as in `Source`; arrays stay in this process, everything else is pickled to the workers.
        plan: the indices (b,) of each step, a sequence.
        first: number of the first step.
        workers: processes that decode; 0 for threads of this one.
    """
    grain = _import_grain()
    data = grain.MapDataset.source(plan)[first:].map(functools.partial(_read, records))
    data = data.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD))
    if workers and not isinstance(records, np.ndarray):
        data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=_end_with_the_run)
    batches = iter(data)
    try:
        with as_data_errors():
            with _no_signals_for_new_processes():
                batch = next(batches, None)  # starts the workers
            while batch is not None:
                yield np.array(batch)  # a copy: workers hand over shared memory, which must not outlive them
                batch = next(batches, None)
    finally:
        batches.close()


def _read(records: Any, indices: np.ndarray) -> np.ndarray:
    if isinstance(records, np.ndarray):
        return np.asarray(records[indices])
    return np.stack([records[int(index)] for index in indices])


def default_workers() -> int:
    """All cores but one, which the loop takes, but 1 to 4."""
    return min(max(usable_cores() - 1, 1), 4)


@contextlib.contextmanager
def _no_signals_for_new_processes() -> Iterator[None]:
    """Blocks signals in this thread and, by inheritance, in the processes that it starts.

    Ctrl-C in a terminal, SLURM, systemd and timeout signal all processes of a job, and the run has to save before its
    workers end.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it later would unblock some of them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_the_run(index: int, count: int) -> None:
    """Makes a worker exit when the run is gone, also when that was killed."""
    run: Any = multiprocessing.parent_process()

    def wait() -> None:
        run.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _import_grain() -> Any:
    try:
        import grain
        from absl import flags
    except ImportError as error:
        raise ValueError("streaming needs grain, got none; install it with: pip install -e '.[train]'") from error
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers read them, and only absl programs parse them
    return grain
