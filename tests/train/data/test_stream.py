"""Streamed batches are those of a resident source, from any step on, however many processes read them."""

import contextlib
import itertools
import os
import re
import subprocess
import sys
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from train.data import Source
from train.data.batches import eval_batches, train_batches
from train.data.stream import DataError, Stream, default_workers
from train.signals import SIGNALS

from ..conftest import wait_until_gone
from ..peak_memory import family, peak_rss

COUNT, BATCH, SEED = 53, 6, 3
STREAM_PROGRAM = Path(__file__).with_name("stream_program.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="processes are seen in Linux's /proc")
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 17, 19, 3), np.uint8)


class Decoded:
    """Images that worker processes can read; one of them may be damaged, and all of them slow."""

    def __init__(self, damaged=None, seconds=0):
        self.damaged, self.seconds = damaged, seconds

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        time.sleep(self.seconds)
        if index == self.damaged:
            raise ValueError("photo.jpg could be read at first, but no longer: it was cut off")
        return IMAGES[index]


def source(**options):
    return Source("mine", Decoded(**options))


def stream(opened, **options):
    return Stream(opened, **{"batch_size": BATCH, "seed": SEED, "shuffle": True, "workers": 0, **options})


def taken(batches, count):
    got = list(itertools.islice(batches, count))
    batches.close()
    return got


def resident(epochs, shuffle=True):
    """The indices of a resident run's batches."""
    orders = (train_batches(range(42), BATCH, shuffle=shuffle, seed=SEED, epoch=epoch) for epoch in range(epochs))
    return list(itertools.chain.from_iterable(orders))


def check(batches, wanted):
    assert len(batches) == len(wanted)
    for (images, indices), want in zip(batches, wanted, strict=True):
        assert indices.dtype == np.int32
        assert np.array_equal(indices, want)
        assert np.array_equal(images, IMAGES[want])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("records", [Decoded(), IMAGES], ids=["decoded", "array"])
def test_batches_are_those_of_a_resident_source_epoch_after_epoch(records, shuffle):
    streamed = stream(Source("mine", records), shuffle=shuffle)
    assert streamed.steps == 7
    check(taken(streamed.batches(), 21), resident(3, shuffle))


@pytest.mark.parametrize("first", [1, 6, 7, 13, 100])
def test_a_stream_starts_at_any_step_of_the_run(first):
    check(taken(stream(source()).batches(first), 9), resident(20)[first : first + 9])


def test_worker_processes_change_nothing_and_hand_on_what_goes_wrong():
    wanted = resident(3)[5:]
    sound = next(step for step, indices in enumerate(wanted) if 30 in indices)
    assert sound >= 4
    batches = stream(source(damaged=30), workers=2).batches(5)
    check(list(itertools.islice(batches, sound)), wanted[:sound])
    with pytest.raises(DataError, match=r"photo.jpg could be read at first, but no longer: it was cut off"):
        next(batches)


@needs_proc
def test_signals_for_the_run_do_not_end_its_workers():
    """Ctrl-C and the end of a job reach all processes, also those that have only just been started."""
    resource_tracker.ensure_running()  # a process of multiprocessing's own, which stays
    known, told, over = family(os.getpid()), set(), threading.Event()

    def tell():
        while not over.wait(0.001):
            for pid in family(os.getpid()) - known:
                told.add(pid)
                for number in SIGNALS:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)

    thread = threading.Thread(target=tell)
    thread.start()
    batches = stream(source(), workers=2).batches()
    try:
        check(list(itertools.islice(batches, 15)), resident(3)[:15])
    finally:
        over.set()
        thread.join()
        batches.close()
    assert len(told) >= 2
    wait_until_gone(told)


@needs_proc
def test_no_worker_outlives_a_stream_that_was_killed():
    words = [sys.executable, STREAM_PROGRAM, "1000000", "2"]
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "first batch\n"
    processes = family(process.pid)
    assert len(processes) >= 3
    process.kill()
    process.wait()
    wait_until_gone(processes)


def test_processes_read_their_own_rows_of_the_same_batches():
    parts = [taken(stream(source(), process_index=i, process_count=3).batches(4), 5) for i in range(3)]
    check(
        [tuple(map(np.concatenate, zip(*shares, strict=True))) for shares in zip(*parts, strict=True)], resident(2)[4:9]
    )
    tests = [list(stream(source(), process_index=i, process_count=3).tests()) for i in range(3)]
    whole = [np.concatenate([share[1] for share in shares]) for shares in zip(*tests, strict=True)]
    assert np.array_equal(whole, [indices for indices, _ in eval_batches(range(42, COUNT), BATCH)])


def test_test_batches_hold_every_test_image_once_in_order():
    for _ in range(2):
        batches = list(stream(source()).tests())
        for (images, indices, real), wanted in zip(batches, eval_batches(range(42, COUNT), BATCH), strict=True):
            assert np.array_equal(indices, wanted[0])
            assert np.array_equal(real, wanted[1])
            assert np.array_equal(images, IMAGES[indices])


def test_an_image_that_can_no_longer_be_read_stops_the_stream_and_is_named():
    with pytest.raises(DataError, match=r"photo.jpg could be read at first, but no longer: it was cut off"):
        taken(stream(source(damaged=30)).batches(), 7)


def test_the_time_for_which_the_loop_waits_is_counted_and_that_of_the_step_is_not(monkeypatch):
    stepped = 0.0
    monkeypatch.setattr("train.data.stream.time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + stepped))
    streamed = stream(source(seconds=0.03))
    assert streamed.waited == 0
    with contextlib.closing(streamed.batches()) as batches:
        next(batches)
        before = streamed.waited
        assert before >= BATCH * 0.03
        stepped = 1000.0
        next(batches)
        assert streamed.waited - before < 1000


def test_the_default_leaves_a_core_to_the_loop(monkeypatch):
    for cores, workers in {1: 1, 2: 1, 3: 2, 64: 4}.items():
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: range(cores), raising=False)
        assert default_workers() == workers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must lie in [1, 42], the training images, got 0"),
        ({"batch_size": 43}, "batch_size must lie in [1, 42], the training images, got 43"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"process_count": 4}, "process_count must divide the batch of 6 images, got 4"),
        ({"process_count": 0}, "process_count must divide the batch of 6 images, got 0"),
        ({"process_count": 2, "process_index": 2}, "process_index must lie in [0, 2), got 2"),
        ({"process_index": -1}, "process_index must lie in [0, 1), got -1"),
    ],
)
def test_numbers_that_make_no_sense_are_errors(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        stream(source(), **options)


def test_a_step_below_zero_is_an_error():
    with pytest.raises(ValueError, match=r"^first_step must be at least 0, got -1$"):
        stream(source()).batches(-1)


@needs_proc
def test_a_hundred_thousand_images_stream_within_two_gibibytes():
    """All processes together; the images themselves have 2.6."""
    peak, status = peak_rss([sys.executable, STREAM_PROGRAM, "24", "2"], env=ENVIRONMENT)
    assert status == 0
    assert 2**27 < peak < 2**31
