"""A source's split and size, its images as one array or one by one, and what ``--data`` understands."""

import re
import subprocess
import sys

import numpy as np
import pytest

from train.data import KINDS, Source, open_source

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
    assert np.array_equal(opened.read(slice(None)), IMAGES)
    assert np.array_equal(opened.read(np.array([7, 2, 5])), IMAGES[[7, 2, 5]])


def test_a_source_may_be_cut_anywhere():
    opened = Source("mine", IMAGES, train=range(2, 5), test=range(9, 11), notes=["a line"])
    assert (opened.train, opened.test, opened.notes) == (range(2, 5), range(9, 11), ("a line",))


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (IMAGES / 255, "float64 (11, 17, 19, 3)"),
        (IMAGES[..., 0], "uint8 (11, 17, 19)"),
        (IMAGES[..., :2], "uint8 (11, 17, 19, 2)"),
        (IMAGES[:, :, :15], "uint8 (11, 17, 15, 3)"),
        (IMAGES[:4], "uint8 (4, 17, 19, 3)"),
        (IMAGES[:0], "float64 (0, 0)"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, Decoded], ids=["array", "decoded"])
def test_what_is_no_set_of_images_is_an_error(kind, images, got):
    message = f"mine: at least 5 images of at least 16x16 pixels, uint8 (n, h, w, 3), are needed, got {got}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
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
from train.data.feed import Feed
from train.devices import Layout
np.savez("a.npz", images=np.zeros((7, 17, 19, 3), np.uint8))
source = open_source("npz:a.npz")
assert source.records.shape == (7, 17, 19, 3)
for use in (lambda: Feed(source, Config(batch_size=2), Layout(2), streamed=True), lambda: open_source("stl10")):
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
