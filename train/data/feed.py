"""The batches of a run: from records that are on the device as a whole, or from a stream of decoded records.

Both give the same batches in the same order, so a streamed run computes what a resident one does. The records of a
step depend on its number alone: a run resumes anywhere, with any number of workers.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

import jax
import numpy as np

from ..config import Config
from ..devices import Layout, usable_cores
from ..signals import SIGNALS
from ..text import first_line
from . import Source
from .source import Records

STEPS = 2**40  # endless, for grain, which wants a length
THREADS = 4  # per process, for decoding
AHEAD = 4  # batches that each process decodes ahead


class DataError(Exception):
    """A record that cannot be read any more, or a worker that was killed."""


@contextlib.contextmanager
def as_data_errors() -> Iterator[None]:
    """Turns errors from reading records into a `DataError` of one line."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        raise DataError(first_line(error)) from error


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


def train_batches(images: range, batch_size: int, *, shuffle: bool, seed: int, epoch: int) -> np.ndarray:
    """The indices (steps, batch_size) of an epoch's batches; drops the last, incomplete one.

    Example:
        >>> train_batches(range(5), 2, shuffle=False, seed=0, epoch=0).tolist()
        [[0, 1], [2, 3]]
    """
    order = np.arange(images.start, images.stop, dtype=np.int32)
    if shuffle:
        order = np.random.default_rng([seed, epoch]).permutation(order)
    full = len(order) // batch_size * batch_size
    return order[:full].reshape(-1, batch_size)


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


@dataclasses.dataclass(frozen=True)
class Plan:
    """The indices (b,) of each training step's records, epoch after epoch without end."""

    records: range
    batch_size: int
    shuffle: bool
    seed: int

    @property
    def steps(self) -> int:
        """The number of steps per epoch."""
        return len(self.records) // self.batch_size

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, self.steps)
        return np.asarray(epoch_of(self, epoch)[place])


@functools.lru_cache(maxsize=2)  # reading ahead is in two epochs at once
def epoch_of(plan: Plan, epoch: int) -> np.ndarray:
    """The indices (steps, b) of an epoch."""
    return train_batches(plan.records, plan.batch_size, shuffle=plan.shuffle, seed=plan.seed, epoch=epoch)


class ResidentFeed:
    """All records on each device; a batch is a list of indices."""

    waited = 0.0

    def __init__(self, source: Source, config: Config, layout: Layout) -> None:
        self._source, self._layout = source, layout
        self._plan = Plan(source.train, config.batch_size, config.shuffle, config.seed)
        self._inputs: Any = layout.copy(source.inputs)

    def train(self, epoch: int, first: int) -> Iterator[Fed]:
        """The training batches of an epoch, beginning with number ``first``."""
        for indices in epoch_of(self._plan, epoch)[first:]:
            yield self._fed(indices, np.ones(len(indices), np.bool_))

    def test(self) -> Iterator[Fed]:
        """The test batches, in file order."""
        for indices, real in eval_batches(self._source.test, self._plan.batch_size):
            yield self._fed(indices, real)

    def close(self) -> None:
        """Does nothing."""

    def _fed(self, indices: np.ndarray, real: np.ndarray) -> Fed:
        places = self._layout.cut(indices)
        return Fed(self._inputs, places, places, real, _labels(self._source, indices, self._layout))


class StreamedFeed:
    """Each batch brings its own records, which worker processes decode during the steps before it."""

    def __init__(self, source: Source, config: Config, layout: Layout) -> None:
        _import_grain()  # fails before a run folder is created
        self.waited = 0.0  # seconds that training has waited for batches
        self._source, self._layout = source, layout
        self._plan = Plan(source.train, config.batch_size, config.shuffle, config.seed)
        self._workers = default_workers() if config.workers is None else config.workers
        self._places = layout.cut(np.arange(config.batch_size, dtype=np.int32))
        self._batches: Generator[np.ndarray, None, None] | None = None
        self._next = 0  # the step that the next batch is for

    def train(self, epoch: int, first: int) -> Iterator[Fed]:
        """The training batches of an epoch, beginning with number ``first``."""
        start = epoch * self._plan.steps + first
        if self._batches is None or self._next != start:  # otherwise the workers continue with the next epoch
            self.close()
            self._next, self._batches = start, decode(self._source.records, self._plan, start, self._workers)
        for step in range(start, start + self._plan.steps - first):
            began = time.perf_counter()
            inputs, indices = next(self._batches), self._plan[step]
            self._next += 1
            fed = self._fed(inputs, indices, np.ones(len(indices), np.bool_))
            self.waited += time.perf_counter() - began
            yield fed

    def test(self) -> Iterator[Fed]:
        """The test batches, in file order."""
        batches = list(eval_batches(self._source.test, self._plan.batch_size))
        with contextlib.closing(decode(self._source.records, [indices for indices, _ in batches])) as decoded:
            for inputs, (indices, real) in zip(decoded, batches, strict=True):
                yield self._fed(inputs, indices, real)

    def close(self) -> None:
        """Ends the workers."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _fed(self, inputs: np.ndarray, indices: np.ndarray, real: np.ndarray) -> Fed:
        cut, labels = self._layout.cut, _labels(self._source, indices, self._layout)
        return Fed(cut(inputs), self._places, cut(indices), real, labels)


Feed = ResidentFeed | StreamedFeed


def open_feed(source: Source, config: Config, layout: Layout) -> Feed:
    """The feed for a source: resident if all devices' copies of it fit into memory."""
    resident = source.resident and source.size <= layout.most
    return (ResidentFeed if resident else StreamedFeed)(source, config, layout)


def _labels(source: Source, indices: np.ndarray, layout: Layout) -> jax.Array | None:
    return None if source.labels is None else layout.cut(source.labels[indices])


def decode(
    records: Records, plan: Sequence[np.ndarray] | Plan, first: int = 0, workers: int = 0
) -> Generator[np.ndarray, None, None]:
    """Yields the records of each step of a plan, beginning with step ``first``, decoded ahead; close it when done.

    Args:
        records: arrays stay in this process; everything else is pickled to the workers.
        plan: the indices (b,) of each step.
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


def _read(records: Records, indices: np.ndarray) -> np.ndarray:
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
    run = multiprocessing.parent_process()

    def wait() -> None:
        if run is not None:
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
