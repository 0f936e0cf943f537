"""Where batches come from makes no difference to a run."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from train.data.stream import Stream

from train import devices
from train.__main__ import main
from train.config import Config
from train.data import Source, source
from train.data.feed import ResidentFeed, StreamedFeed, open_feed
from train.devices import Layout
from train.loop import Run
from train.step import train_step

from .conftest import small_images, wait_for, wait_until_gone
from .peak_memory import family

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nothing_is_resident(monkeypatch):
    monkeypatch.setattr(source, "RESIDENT_BYTES", 0)


def test_large_sources_stream(monkeypatch):
    images, config = Source("a", small_images()), Config(batch_size=8)
    assert isinstance(open_feed(images, config, Layout(8)), ResidentFeed)
    monkeypatch.setattr(source, "RESIDENT_BYTES", small_images().nbytes - 1)
    assert isinstance(open_feed(images, config, Layout(8)), StreamedFeed)


def test_what_lies_on_each_device_takes_the_host_s_memory_as_often(monkeypatch):
    images, config, layout = Source("a", small_images()), Config(batch_size=8), Layout(8)
    monkeypatch.setattr(devices, "COPIES_BYTES", 7 * small_images().nbytes)
    for count, kind in ((1, ResidentFeed), (7, ResidentFeed), (8, StreamedFeed)):
        layout.devices = count
        assert isinstance(open_feed(images, config, layout), kind)
    monkeypatch.setattr(layout, "_copies", SimpleNamespace(device_set=[SimpleNamespace(platform="gpu")]))
    assert layout.most == math.inf  # each has a memory of its own


@pytest.mark.parametrize("shuffle", [True, False])
def test_both_feeds_give_the_same_images(shuffle):
    images, config = Source("a", small_images(37)), Config(batch_size=8, shuffle=shuffle, workers=0)
    feeds = [kind(images, config, Layout(8)) for kind in (ResidentFeed, StreamedFeed)]
    # Forwards, from the middle of an epoch, and back.
    for epoch, first in ((0, 0), (1, 0), (4, 2), (0, 1)):
        resident, streamed = (list(feed.train(epoch, first)) for feed in feeds)
        assert len(resident) == 3 - first
        check_same(resident, streamed)
    check_same(*(list(feed.test()) for feed in feeds))
    feeds[1].close()


def check_same(resident, streamed):
    for one, other in zip(resident, streamed, strict=True):
        np.testing.assert_array_equal(one.inputs[one.places], other.inputs[other.places])
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.real, other.real)


def test_a_stream_goes_on_from_one_epoch_to_the_next(monkeypatch):
    opened, batches = [], Stream.batches
    monkeypatch.setattr(Stream, "batches", lambda stream, first: opened.append(first) or batches(stream, first))
    feed = StreamedFeed(Source("a", small_images()), Config(batch_size=8), Layout(8))
    for epoch in range(3):
        list(feed.train(epoch, 0))
    feed.close()
    assert opened == [0]


@pytest.mark.usefixtures("nothing_is_resident")
def test_a_streamed_run_is_the_resident_run_to_the_bit(archive, tmp_path, monkeypatch):
    options = ["--data", f"npz:{archive}", "--batch-size", "8", "--epochs", "2"]
    assert main([*options, "--run-dir", str(tmp_path / "streamed")]) == 0
    monkeypatch.undo()
    assert main([*options, "--run-dir", str(tmp_path / "resident")]) == 0
    streamed, resident = (tmp_path / name for name in ("streamed", "resident"))
    assert (streamed / "steps.jsonl").read_text() == (resident / "steps.jsonl").read_text()
    assert (streamed / "model.safetensors").read_bytes() == (resident / "model.safetensors").read_bytes()
    errors = [json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]) for folder in (streamed, resident)]
    assert errors[0]["test_error"] == errors[1]["test_error"]


def waits_for_images(log):
    """Whether a run has used up those that were ready when it began, and takes no step for now."""
    if not log.exists():
        return False
    steps = log.read_text().count("\n")
    time.sleep(0.15)
    return steps > 30 and log.read_text().count("\n") == steps


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are seen in Linux's /proc")
def test_the_end_of_a_job_which_tells_all_processes_lets_a_streamed_run_save(tmp_path):
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
    assert "the last good one is" in told
    assert list((folder / "checkpoints").iterdir())
    wait_until_gone(processes)


@pytest.mark.parametrize(
    ("stepped", "waited", "told"),
    [
        (0.1, 0.0, []),
        (0.1, 0.004, []),
        (0.08, 0.045, ["25% longer than on images that are there already: 125 ms for 100, 45 of them waiting for "]),
        (0.15, 0.0, ["50% longer than on images that are there already: 150 ms for 100, 0 of them waiting for "]),
    ],
)
def test_a_stream_that_makes_steps_longer_is_told(stepped, waited, told):
    run, lines = Run(Config(batch_size=8), Source("a", small_images())), []
    run.warn = lines.append
    run._warn_of_stream(stepped, waited, alone=0.1)
    assert lines == [f"steps took {line}images to reach the device" for line in told]


@pytest.mark.usefixtures("nothing_is_resident")
def test_steps_are_timed_without_the_stream_and_change_nothing(monkeypatch):
    monkeypatch.setattr("train.loop.ALONE", 3)  # an epoch has four steps, of which the first compiles
    seen, losses = [], {True: [], False: []}
    monkeypatch.setattr(Run, "_warn_of_stream", lambda run, *seconds: seen.append(seconds))
    for timed in (True, False):
        if not timed:
            monkeypatch.setattr(Run, "_alone", lambda run, fed, epoch: 1.0)
        run = Run(Config(batch_size=8, network="multi_head"), Source("a", small_images()))
        with contextlib.closing(run):
            train_step.clear_cache()
            for _ in run.epochs(lambda split, tally, error, timed=timed: losses[timed].append(error)):
                pass
            assert train_step._cache_size() == 1
    assert losses[True] == losses[False]
    assert len(seen) == 6
    assert all(stepped > 0 and waited >= 0 and alone > 0 for stepped, waited, alone in seen)


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="training takes one process, got 2 that JAX has joined"):
        Run(Config(batch_size=8), Source("a", small_images()))


def test_where_records_are_decoded_more_processes_may_help():
    run, lines = Run(Config(batch_size=8), Source("a", Broken(0, times=99))), []
    run.warn = lines.append
    run._warn_of_stream(0.1, 0.1, alone=0.1)
    assert "waiting for images to be decoded and to reach the device; --workers sets" in lines[0]


def test_the_way_to_the_device_counts_as_waiting_and_the_step_does_not(monkeypatch):
    clock = [0.0]

    def later(seconds, result):
        clock[0] += seconds
        return result

    for module in ("train.data.feed", "train.data.stream"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    feed = StreamedFeed(Source("a", small_images()), Config(batch_size=8, workers=0), Layout(8))
    cut = feed._layout.cut
    monkeypatch.setattr(feed._layout, "cut", lambda array: later(0.25, cut(array)))
    with contextlib.closing(feed):
        batches = feed.train(0, 0)
        next(batches)
        assert feed.waited == 0.5  # inputs and indices
        later(8.0, "the step")
        next(batches)
        assert feed.waited == 1.0


class Broken:
    """Images of which one can no longer be read, once it has been read some times."""

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


@pytest.mark.usefixtures("nothing_is_resident")
@pytest.mark.parametrize(
    ("index", "times", "good"), [(30, 0, 3), (37, 0, 3), (37, 1, 4)], ids=["training", "the test", "the finish"]
)
def test_an_image_that_breaks_ends_the_run_with_one_line(index, times, good, tmp_path, monkeypatch, capsys):
    broken = Source("broken", Broken(index, times))
    monkeypatch.setattr("train.tasks.patch.open_source", lambda data, progress: broken)
    folder = tmp_path / "run"
    options = ["--data", "npz:any", "--batch-size", "8", "--save-steps", "1", "--no-shuffle", "--workers", "0"]
    assert main([*options, "--epochs", "1", "--run-dir", str(folder)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(
        "error: one of the images cannot be read: photo.jpg could be read at first, but no longer; of the "
    )
    assert told.endswith(f"the last good one is {folder / 'checkpoints' / str(good)}\n")
