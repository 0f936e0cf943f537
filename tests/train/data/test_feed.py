"""Streamed batches are those of a resident source, from any step on, however many processes read them."""

import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from train import devices
from train.__main__ import main
from train.config import Config
from train.data import Source, source
from train.data.feed import (
    DataError,
    Feed,
    check_batch_size,
    default_workers,
    eval_batches,
    open_feed,
    train_indices,
)
from train.devices import Layout
from train.loop import Run
from train.signals import SIGNALS

from ..conftest import small_images, wait_for, wait_until_gone
from ..peak_memory import family, peak_rss

ROOT = Path(__file__).parents[3]
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="finds processes in Linux's /proc")
COUNT, BATCH = 53, 6  # 42 images for training, 7 batches
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 17, 19, 3), np.uint8)


class Decoded:
    """Images that worker processes can read, one of which is damaged as soon as a file exists."""

    def __init__(self, damaged=None, damage=Path("/")):
        self.damaged, self.damage = damaged, damage

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        if index == self.damaged and self.damage.exists():
            raise ValueError("photo.jpg could be read at first, but no longer: it was cut off\nand more")
        return IMAGES[index]


def config(**options):
    return Config(**{"batch_size": BATCH, "seed": 3, "workers": 0, **options})


def feed_of(records, *, streamed=True, **options):
    return Feed(Source("mine", records), config(**options), Layout(BATCH), streamed=streamed)


def check(feed, starts, **options):
    """Compares training batches from several places, and the test batches, with those of the resident array."""
    resident = feed_of(IMAGES, streamed=False, **options)
    for epoch, first in starts:
        assert check_same(feed.train(epoch, first), resident.train(epoch, first)) == 7 - first
    assert check_same(feed.test(), resident.test()) == 2


def check_same(some, others):
    some, others = list(some), list(others)
    for one, other in zip(some, others, strict=True):
        assert one.indices.dtype == np.int32
        np.testing.assert_array_equal(one.inputs[one.places], other.inputs[other.places])
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.real, other.real)
    return len(some)


@pytest.mark.parametrize("shuffle", [True, False])
def test_training_batches_are_full_and_the_order_depends_on_epoch_and_seed(shuffle):
    def order(epoch, seed=0):
        options = config(shuffle=shuffle, seed=seed)
        return np.stack([train_indices(range(20), options, 3 * epoch + step) for step in range(3)])

    assert np.array_equal(order(1), order(1))
    assert len(np.unique(order(0))) == 18
    in_file_order = np.array_equal(order(0), np.arange(18).reshape(3, 6))
    assert in_file_order == np.array_equal(order(0), order(1)) == np.array_equal(order(0), order(0, seed=1)) != shuffle


def test_test_batches_hold_every_image_once_in_order():
    batches = list(eval_batches(range(20, 33), 5))
    assert np.concatenate([indices[real] for indices, real in batches]).tolist() == list(range(20, 33))
    assert all(len(indices) == 5 for indices, _ in batches)


def test_a_batch_larger_than_the_training_set_is_an_error():
    check_batch_size(42, range(42))
    with pytest.raises(ValueError, match=r"^--batch-size must be at most the number of training arrays, 42, got 43$"):
        check_batch_size(43, range(42), "arrays")


def test_large_sources_stream(monkeypatch):
    for limit, streamed in ((IMAGES.nbytes, False), (IMAGES.nbytes - 1, True)):
        monkeypatch.setattr(source, "RESIDENT_BYTES", limit)
        assert is_streamed(open_feed(Source("a", IMAGES), config(), Layout(BATCH))) == streamed


def is_streamed(feed):
    """Whether batches bring their own records."""
    (batch,) = itertools.islice(feed.test(), 1)
    return len(batch.inputs) == BATCH


def test_copies_for_all_cpu_devices_have_to_fit_into_the_host_s_memory(monkeypatch):
    images, layout = Source("a", IMAGES), Layout(BATCH)
    monkeypatch.setattr(devices, "COPIES_BYTES", 7 * IMAGES.nbytes)
    for count, streamed in ((1, False), (7, False), (8, True)):
        layout.devices = count
        assert is_streamed(open_feed(images, config(), layout)) == streamed
    monkeypatch.setattr(layout, "_copies", SimpleNamespace(device_set=[SimpleNamespace(platform="gpu")]))
    assert layout.most == math.inf  # GPUs have their own memory


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("records", [Decoded(), IMAGES], ids=["decoded", "array"])
def test_a_stream_gives_the_batches_of_a_resident_source_from_any_step_on(records, shuffle):
    feed = feed_of(records, shuffle=shuffle)
    check(feed, [(0, 0), (1, 0), (4, 2), (0, 1), (0, 6), (14, 2)], shuffle=shuffle)
    feed.close()


@needs_proc
def test_workers_survive_signals_for_the_run_continue_across_epochs_and_report_errors(tmp_path):
    """Ctrl-C and the end of a job signal all processes, also those that have only just been started."""
    resource_tracker.ensure_running()  # multiprocessing's own process, which stays
    known, signalled, over = family(os.getpid()), set(), threading.Event()

    def signal_all():
        while not over.wait(0.001):
            for pid in family(os.getpid()) - known:
                signalled.add(pid)
                for number in SIGNALS:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)

    thread = threading.Thread(target=signal_all)
    thread.start()
    feed = feed_of(Decoded(30, tmp_path / "damage"), workers=2)
    try:
        check(feed, [(0, 5), (1, 0), (2, 0)])
        assert len(signalled) == 2  # none started again
        (tmp_path / "damage").touch()
        with pytest.raises(DataError, match=r"photo.jpg could be read at first, but no longer: it was cut off$"):
            list(itertools.chain.from_iterable(feed.train(epoch, 0) for epoch in range(3, 10)))
    finally:
        over.set()
        thread.join()
        feed.close()
    wait_until_gone(signalled)


@needs_proc
def test_a_hundred_thousand_images_stream_in_two_gibibytes_and_no_worker_outlives_a_killed_run(tmp_path):
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    with open(tmp_path / "out", "w") as out:
        peak, status = peak_rss(
            [sys.executable, "-m", "tests.train.data.stream_program"], env=environment, stdout=out, cwd=ROOT
        )
    assert status == -signal.SIGKILL
    seen, *workers = map(int, (tmp_path / "out").read_text().split())
    assert (seen, len(workers)) == (24 * 64, 2)
    wait_until_gone(workers)
    assert 2**27 < peak < 2**31  # of all processes; the images have 2.6 GiB


@pytest.mark.parametrize(("damaged", "split"), [(30, "train"), (50, "test")])
def test_an_image_that_can_no_longer_be_read_stops_the_stream_and_is_named(damaged, split):
    feed = feed_of(Decoded(damaged))
    with pytest.raises(DataError, match=r"^photo.jpg could be read at first, but no longer: it was cut off$"):
        list(feed.train(0, 0) if split == "train" else feed.test())
    feed.close()


def test_the_default_leaves_a_core_to_the_loop(monkeypatch):
    for cores, workers in {1: 1, 2: 1, 3: 2, 64: 4}.items():
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: range(cores), raising=False)
        assert default_workers() == workers


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="training takes one process, got 2 that JAX has joined"):
        Run(Config(batch_size=8), Source("a", small_images()))


def test_a_streamed_run_is_the_resident_run_to_the_bit(archive, tmp_path, monkeypatch):
    options = ["--data", f"npz:{archive}", "--batch-size", "8", "--epochs", "2"]
    streamed, resident = (tmp_path / name for name in ("streamed", "resident"))
    assert main([*options, "--run-dir", str(resident)]) == 0
    monkeypatch.setattr(source, "RESIDENT_BYTES", 0)
    assert main([*options, "--run-dir", str(streamed)]) == 0
    for name in ("steps.jsonl", "model.safetensors"):
        assert (streamed / name).read_bytes() == (resident / name).read_bytes()
    errors = [json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]) for folder in (streamed, resident)]
    assert errors[0]["test_error"] == errors[1]["test_error"]


@needs_proc
def test_the_end_of_a_job_which_signals_all_processes_lets_a_streamed_run_save(tmp_path):
    """As SLURM, systemd and timeout do."""
    folder, steps = tmp_path / "run", tmp_path / "run" / "steps.jsonl"
    options = ["--network", "cnn", "--batch-size", "8", "--epochs", "4000", "--workers", "1", "--run-dir", str(folder)]
    words = [sys.executable, "-m", "tests.train.streamed_run", *options]
    run = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(run, lambda: waits_for_images(steps))
    processes = family(run.pid)
    assert len(processes) >= 2
    os.killpg(run.pid, signal.SIGTERM)
    _, told = run.communicate(timeout=120)
    assert run.returncode == 128 + signal.SIGTERM, told
    assert "the last good checkpoint is" in told
    assert list((folder / "checkpoints").iterdir())
    wait_until_gone(processes)


def waits_for_images(log):
    """Whether a run has used up the images that were ready when it began."""
    if not log.exists():
        return False
    steps = log.read_text().count("\n")
    time.sleep(0.15)
    return steps > 30 and log.read_text().count("\n") == steps


class Broken:
    """Images of which one can no longer be read after it has been read some times."""

    def __init__(self, index, times):
        self.images, self.index, self.times = small_images(), index, times

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index == self.index:
            self.times -= 1
            if self.times < 0:
                raise ValueError("photo.jpg could be read at first, but no longer")
        return self.images[index]


@pytest.mark.parametrize(
    ("index", "times", "good"), [(30, 0, 3), (37, 0, 3), (37, 1, 4)], ids=["training", "the test", "the finish"]
)
def test_an_image_that_breaks_ends_the_run_with_one_line(index, times, good, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(source, "RESIDENT_BYTES", 0)
    monkeypatch.setattr("train.tasks.patch.open_source", lambda *_: Source("broken", Broken(index, times)))
    folder = tmp_path / "run"
    options = ["--data", "npz:any", "--batch-size", "8", "--save-steps", "1", "--no-shuffle", "--workers", "0"]
    assert main([*options, "--epochs", "1", "--run-dir", str(folder)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: photo.jpg could be read at first, but no longer; ")
    assert told.endswith(f"{folder / 'checkpoints' / str(good)}\n")
