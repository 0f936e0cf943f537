"""Streamed batches are those of a resident source, from any step on, however they are read."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from train.__main__ import main
from train.config import Config
from train.data import Source, feed
from train.data.feed import (
    Feed,
    check_batch_size,
    eval_batches,
    open_feed,
    train_batches,
)
from train.devices import Layout

from ..conftest import small_images

ROOT = Path(__file__).parents[3]
COUNT, BATCH = 53, 6  # 42 images for training, 7 batches
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 17, 19, 3), np.uint8)


class Decoded:
    """Images that are read one by one, one of which is damaged as soon as a file exists."""

    def __init__(self, damaged=None, damage=Path("/")):
        self.damaged, self.damage = damaged, damage

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        if index == self.damaged and self.damage.exists():
            raise OSError("photo.jpg could be read at first, but no longer: it was cut off")
        return IMAGES[index]


def config(**options):
    return Config(**{"batch_size": BATCH, "seed": 3, **options})


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
        np.testing.assert_array_equal(one.records, other.records)
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.real, other.real)
    return len(some)


@pytest.mark.parametrize("shuffle", [True, False])
def test_training_batches_are_full_and_the_order_depends_on_epoch_and_seed(shuffle):
    def order(epoch, seed=0):
        options = config(shuffle=shuffle, seed=seed)
        return train_batches(range(20), options, epoch)

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
    monkeypatch.setattr(feed, "RESIDENT_BYTES", 7 * IMAGES.nbytes)
    layout = Layout(BATCH)
    for layout.devices, streamed in ((1, False), (7, False), (8, True)):
        assert is_streamed(open_feed(Source("a", IMAGES), config(), layout)) == streamed


def is_streamed(feed):
    """Whether batches bring their own records."""
    (batch,) = itertools.islice(feed.test(), 1)
    return len(batch.inputs) == BATCH


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("records", [Decoded(), IMAGES], ids=["decoded", "array"])
def test_a_stream_gives_the_batches_of_a_resident_source_from_any_step_on(records, shuffle):
    feed = feed_of(records, shuffle=shuffle)
    check(feed, [(0, 0), (1, 0), (4, 2), (0, 1), (0, 6), (14, 2)], shuffle=shuffle)
    feed.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory in Linux's /proc")
def test_a_hundred_thousand_images_stream_in_two_gibibytes():
    program = [sys.executable, "-m", "tests.train.data.stream_program"]
    seen, peak = map(int, subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout.split())
    assert seen == 24 * 64
    assert 2**27 < peak < 2**31  # the images have 2.6 GiB


@pytest.mark.parametrize(("damaged", "split"), [(30, "train"), (50, "test")])
def test_an_image_that_can_no_longer_be_read_stops_the_stream_and_is_named(damaged, split):
    feed = feed_of(Decoded(damaged))
    with pytest.raises(OSError, match=r"^photo.jpg could be read at first, but no longer: it was cut off"):
        list(feed.train(0, 0) if split == "train" else feed.test())
    feed.close()


def test_a_streamed_run_is_the_resident_run_to_the_bit(archive, tmp_path, monkeypatch):
    options = ["--data", f"npz:{archive}", "--batch-size", "8", "--epochs", "2"]
    streamed, resident = (tmp_path / name for name in ("streamed", "resident"))
    assert main([*options, "--run-dir", str(resident)]) == 0
    monkeypatch.setattr(feed, "RESIDENT_BYTES", 0)
    assert main([*options, "--run-dir", str(streamed)]) == 0
    for name in ("steps.jsonl", "model.safetensors"):
        assert (streamed / name).read_bytes() == (resident / name).read_bytes()
    errors = [json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]) for folder in (streamed, resident)]
    assert errors[0]["test_error"] == errors[1]["test_error"]


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
                raise OSError("photo.jpg could be read at first, but no longer")
        return self.images[index]


@pytest.mark.parametrize(
    ("index", "times", "good"), [(30, 0, 3), (37, 0, 3), (37, 1, 4)], ids=["training", "the test", "the finish"]
)
def test_an_image_that_breaks_ends_the_run_with_one_line(index, times, good, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(feed, "RESIDENT_BYTES", 0)
    monkeypatch.setattr("train.tasks.patch.open_source", lambda *_: Source("broken", Broken(index, times)))
    folder = tmp_path / "run"
    options = ["--data", "npz:any", "--batch-size", "8", "--save-steps", "1", "--no-shuffle"]
    assert main([*options, "--epochs", "1", "--run-dir", str(folder)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: photo.jpg could be read at first, but no longer; ")
    assert told.endswith(f"{folder / 'checkpoints' / str(good)}\n")
