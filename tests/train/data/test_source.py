"""A source's split and size, its images as one array or one by one, and what ``--data`` understands."""

import re
import subprocess
import sys

import numpy as np
import pytest

from train.data import KINDS, Source, open_source, source

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 17, 19, 3), np.uint8)


class Decoded:
    """The same images, one at a time."""

    def __init__(self, images=IMAGES):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


@pytest.mark.parametrize("records", [IMAGES, Decoded()], ids=["array", "decoded"])
def test_images_are_the_same_whether_they_lie_in_memory_or_are_decoded(records):
    opened = Source("mine", records)
    assert (opened.train, opened.test, opened.shape) == (range(8), range(8, 11), (17, 19))
    assert opened.resident
    assert np.array_equal(opened.images, IMAGES)
    assert np.array_equal(opened.read(np.array([7, 2, 5])), IMAGES[[7, 2, 5]])


def test_the_limit_for_living_on_the_device_is_in_bytes(monkeypatch):
    monkeypatch.setattr(source, "RESIDENT_BYTES", IMAGES.nbytes)
    assert Source("mine", Decoded()).resident
    monkeypatch.setattr(source, "RESIDENT_BYTES", IMAGES.nbytes - 1)
    large = Source("mine", Decoded())
    assert not large.resident
    with pytest.raises(
        ValueError, match=r"^mine: 11 images of 17x19 exceed the 0 MiB that may be held in memory; stream them$"
    ):
        _ = large.images
    assert np.array_equal(large.read(np.array([3])), IMAGES[[3]])


def test_a_source_may_be_cut_anywhere():
    opened = Source("mine", IMAGES, train=range(2, 5), test=range(9, 11), notes=["a line"])
    assert (opened.train, opened.test, opened.notes) == (range(2, 5), range(9, 11), ("a line",))


@pytest.mark.parametrize("part", [range(0), range(3, 12), range(-1, 4), range(0, 8, 2)])
@pytest.mark.parametrize("name", ["train", "test"])
def test_a_split_outside_the_images_is_an_error(name, part):
    message = f"mine: a split must be a range within the 11 images, got {part}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Source("mine", IMAGES, **{name: part})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES / 255, "images must be uint8, got float64"),
        (IMAGES[..., 0], "images must have shape (n, h, w, 3), got "),
        (IMAGES[:, :, :15], "images must be at least 16x16, the size of a patch, got 17x15"),
        (IMAGES[:4], "at least 5 images are needed, got 4"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, Decoded], ids=["array", "decoded"])
def test_what_is_no_set_of_images_is_an_error(kind, images, message):
    with pytest.raises(ValueError, match=f"^{re.escape('mine: ' + message)}"):
        Source("mine", kind(images))


UNKNOWN = ["", "npz", "npz:", "folder", "folder:", "stl", "stl10:", "stl10-labelled", "synthetic:3", "Synthetic"]


@pytest.mark.parametrize("data", UNKNOWN)
def test_an_unknown_kind_is_an_error_that_lists_the_known_ones(data):
    with pytest.raises(ValueError, match=f"^{re.escape(f'--data must be {KINDS}, got {data!r}')}$"):
        open_source(data)


def test_training_on_a_small_set_needs_neither_grain_nor_tensorflow(tmp_path):
    """A stream or STL-10 then says what to install."""
    code = """
import sys
for name in ("grain", "tensorflow", "tensorflow_datasets"):
    sys.modules[name] = None
import numpy as np
import train.training
from train.config import Config
from train.data import open_source
from train.data.feed import StreamedFeed
from train.devices import Layout
np.savez("a.npz", images=np.zeros((7, 17, 19, 3), np.uint8))
source = open_source("npz:a.npz")
assert source.resident and source.images.shape == (7, 17, 19, 3)
for use in (lambda: StreamedFeed(source, Config(batch_size=2), Layout(2)), lambda: open_source("stl10")):
    try:
        use()
    except ValueError as error:
        print(error)
"""
    path = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=path, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "streaming needs grain, got none; install it with: pip install -e '.[train]'",
        "stl10: tensorflow-datasets is needed, got: import of tensorflow_datasets halted; None in sys.modules; "
        "install it with: pip install -e '.[stl10]'",
    ], done.stderr
