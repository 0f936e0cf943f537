"""Batches of a source that is too large to live on the device: decoded in worker processes, ahead of the step.

The images come in the order of `train.data.batches`, as they do from a resident source, so that a streamed run
computes what a resident one does. Which images a step gets follows from its number alone: a run resumes anywhere, with
any number of workers, and each of several processes reads its own rows of the same batches.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from multiprocessing import resource_tracker
from typing import Any

import numpy as np

from ..devices import usable_cores
from ..signals import SIGNALS
from .batches import eval_batches, train_batches
from .source import Records, Source


class DataError(Exception):
    """A record that could not be read when its turn came."""


STEPS = 2**40  # more than anyone takes, where grain wants a length
THREADS = 4  # that decode in each process
AHEAD = 4  # batches that each process has ready, beside the one that waits to be fetched


class Stream:
    """The batches of a source, read ahead of the training loop.

    Args:
        source: whose images they are; arrays stay in this process, everything else is read by workers.
        batch_size: images in a batch, of all processes together.
        seed: of the order of the images.
        shuffle: whether each epoch has an order of its own, or all have that of the files.
        workers: processes that decode; 0 for threads of this one. By default all cores but one, at most 4.
        process_index: which of the processes of a run on many hosts this is.
        process_count: how many these are.

    Raises:
        ValueError: numbers that make no sense, a batch larger than the training set, or no grain.

    Attributes:
        steps: per epoch; the last images, which fill no batch, are left out.
        waited: seconds for which whoever takes the training batches has waited for them so far.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        workers: int | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        workers = default_workers() if workers is None else workers
        _check(source, batch_size, workers, process_index, process_count)
        self._grain = _import_grain()
        share = batch_size // process_count
        rows = slice(process_index * share, (process_index + 1) * share)
        self._records = source.records
        self._workers = 0 if isinstance(source.records, np.ndarray) else workers
        self._train = Plan(source.train, batch_size, seed, shuffle, rows)
        self._tests = [(indices[rows], real[rows]) for indices, real in eval_batches(source.test, batch_size)]
        self.steps = len(source.train) // batch_size
        self.waited = 0.0

    def batches(self, first_step: int = 0) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        """Yields this process's rows of each training batch, without end; to be closed when no more are wanted.

        Args:
            first_step: the number of the first one, counted from the start of the run: all that a checkpoint keeps.

        Yields:
            Images, uint8 (b, h, w, 3), and their indices, int32 (b,).

        Raises:
            DataError: one of them cannot be read.
        """
        if first_step < 0:
            raise ValueError(f"first_step must be at least 0, got {first_step}")
        return self._timed(self._serve(self._train, first_step, self._workers))

    def tests(self) -> Generator[tuple[np.ndarray, np.ndarray, np.ndarray], None, None]:
        """Yields this process's rows of each batch of one pass over the test images, decoded by threads.

        Yields:
            Images, uint8 (b, h, w, 3), their indices, int32 (b,), and which of them are real: the last batch is filled
            up.

        Raises:
            DataError: one of them cannot be read.
        """
        with contextlib.closing(self._serve(self._tests, 0, 0)) as batches, as_data_errors():
            yield from batches

    def _timed(self, batches: Generator[Any, None, None]) -> Generator[Any, None, None]:
        with contextlib.closing(batches):
            while True:
                began = time.perf_counter()
                with as_data_errors():
                    batch = next(batches)
                self.waited += time.perf_counter() - began
                yield batch

    def _serve(self, plan: Sequence[tuple[np.ndarray, ...]], first: int, workers: int) -> Generator[Any, None, None]:
        grain = self._grain
        data = grain.MapDataset.source(plan)[first:].map(Reader(self._records))
        data = data.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD))
        if workers:
            data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=_start_worker)
        batches = iter(data)
        try:
            for batch in itertools.chain([_first(batches)], batches) if workers else batches:
                # Workers hand over shared memory, which must not outlive them.
                yield tuple(np.array(array) for array in batch)
        finally:
            batches.close()


class Plan:
    """Which images each training step gets, by its number: epoch after epoch, without end."""

    def __init__(self, images: range, batch_size: int, seed: int, shuffle: bool, rows: slice) -> None:
        self.images, self.batch_size, self.seed, self.shuffle, self.rows = images, batch_size, seed, shuffle, rows

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> tuple[np.ndarray]:
        epoch, place = divmod(step, len(self.images) // self.batch_size)
        return (_epoch(self.images, self.batch_size, self.seed, self.shuffle, epoch)[place][self.rows],)


class Reader:
    """Puts the images before the indices of a batch."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def __call__(self, batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        indices = batch[0]
        if isinstance(self.records, np.ndarray):
            return self.records[indices], *batch
        return np.stack([self.records[int(index)] for index in indices]), *batch


def default_workers() -> int:
    """How many processes decode where nobody says: as many as leave a core to the loop, 1 to 4."""
    return min(max(usable_cores() - 1, 1), 4)


@lru_cache(maxsize=2)  # threads that read ahead are in two epochs at once
def _epoch(images: range, batch_size: int, seed: int, shuffle: bool, epoch: int) -> np.ndarray:
    return np.stack(list(train_batches(images, batch_size, shuffle=shuffle, seed=seed, epoch=epoch)))


def _check(source: Source, batch_size: int, workers: int, process_index: int, process_count: int) -> None:
    if not 1 <= batch_size <= len(source.train):
        raise ValueError(
            f"batch_size must lie in [1, {len(source.train)}], the training {source.unit}, got {batch_size}"
        )
    if workers < 0:
        raise ValueError(f"workers must be at least 0, got {workers}")
    if process_count < 1 or batch_size % process_count:
        raise ValueError(f"process_count must divide the batch of {batch_size} {source.unit}, got {process_count}")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index must lie in [0, {process_count}), got {process_index}")


@contextlib.contextmanager
def as_data_errors() -> Iterator[None]:
    """A file that broke after it was looked at, or a worker that was killed."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        raise DataError(next(iter(str(error).splitlines()), type(error).__name__)) from error


def _first(batches: Iterator[Any]) -> Any:
    """The first batch. Workers are started for it, by a thread from which they inherit that no signal reaches them.

    Signals are for the run, which saves and then ends its workers: Ctrl-C goes to all processes of a terminal, and
    whoever ends a job (SLURM, systemd, timeout) tells all of its processes, too. What workers do about them themselves,
    in `_start_worker`, comes seconds later.
    """
    with ThreadPoolExecutor(1, initializer=_let_no_signal_through) as thread:
        return thread.submit(next, batches).result()


def _let_no_signal_through() -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        resource_tracker.ensure_running()  # where it has to be started it lets some of them through again
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _start_worker(index: int, count: int) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # No worker outlives a run that was killed.
    threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    run = multiprocessing.parent_process()
    if run is not None:
        run.join()
        os._exit(1)


def _import_grain() -> Any:
    try:
        import grain
        from absl import flags
    except ImportError as error:
        raise ValueError("streaming needs grain, got none; install it with: pip install -e '.[train]'") from error
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers look at them; ours is no absl program, so nobody parsed them
    return grain
