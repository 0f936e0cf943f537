"""Images in classes: every class is trained on and tested, whatever the order; what is no set of classes is refused."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from train.config import ClassesConfig
from train.data.classes import LabelledImages, open_classes, read_classes
from train.data.feed import Feed
from train.devices import Layout

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (23, 17, 19, 3), np.uint8)
LABELS = RNG.permutation(np.array([0] * 11 + [1] * 2 + [2] * 10, np.int32))
NAMES = ("ant", "bee", "cat")
COUNTS = {"dog": 7, "Ant": 4, "cat": 2}


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (21, 20), (value, 0, 0)).save(path)


@pytest.fixture
def photos(tmp_path):
    """A folder of classes whose images tell their class and number by their colour."""
    for number, (name, count) in enumerate(COUNTS.items()):
        for i in range(count):
            save(tmp_path / name / f"photo{i + 1}.png", 20 * number + i)
    return tmp_path


def test_four_fifths_of_each_class_train_in_the_given_order():
    source = LabelledImages("mine", IMAGES, LABELS, NAMES)
    assert (len(source.train), len(source.test)) == (17, 6)
    for label, trained in enumerate([8, 1, 8]):
        here = np.flatnonzero(label == LABELS)
        expected = IMAGES[here[:trained]], IMAGES[here[trained:]]
        for part, wanted in zip((source.train, source.test), expected, strict=True):
            found = source.read(slice(part.start, part.stop))[source.labels[part.start : part.stop] == label]
            assert np.array_equal(found, wanted)
    assert (source.classes, source.names) == (3, NAMES)
    assert source.described == "images of 17x19 in 3 classes"


def test_the_folders_are_the_classes_in_order_of_their_names(photos):
    save(photos / "dog" / "more" / "photo0.png", 50)
    source = open_classes(f"folder:{photos}", 24)
    assert source.names == ("Ant", "cat", "dog")  # as sorted() has them
    assert source.shape == (24, 24)
    red = source.read(slice(None))[:, 0, 0, 0].tolist()
    assert red[: len(source.train)] == [20, 21, 22, 40, 50, 0, 1, 2, 3, 4]
    assert red[len(source.train) :] == [23, 41, 5, 6]
    assert source.labels.tolist() == [0] * 3 + [1] + [2] * 6 + [0, 1, 2, 2]
    assert source.notes == ()


def test_a_large_folder_is_decoded_on_demand_and_streamed_alike(photos, monkeypatch):
    kept = open_classes(f"folder:{photos}", 24)
    monkeypatch.setattr("train.data.folder.KEPT_BYTES", 0)
    source = open_classes(f"folder:{photos}", 24)
    assert not isinstance(source.records, np.ndarray)
    assert np.array_equal(source.read(slice(None)), kept.read(slice(None)))
    assert source.identity == kept.identity
    config = ClassesConfig(batch_size=4)
    feeds = [Feed(kept, config, Layout(4), streamed=False), Feed(source, config, Layout(4), streamed=True)]
    for fed, streamed in zip(*([*feed.train(1, 0), *feed.test()] for feed in feeds), strict=True):
        assert np.array_equal(fed.labels, streamed.labels)
        assert np.array_equal(fed.records, streamed.records)
    feeds[1].close()


def test_what_belongs_to_no_class_is_left_out_and_named(photos):
    save(photos / "cover.png", 0)
    save(photos / ".hidden" / "a.png", 0)
    (photos / "dog" / "notes.txt").write_text("no image")
    os.symlink(photos / "dog", photos / "link")
    source = read_classes(str(photos), 24)
    assert source.names == ("Ant", "cat", "dog")
    assert len(source.records) == 13
    (note,) = source.notes
    assert note.startswith(f"folder:{photos}: 3 files or folders left out: ")
    for part in ("link (a link to a folder)", "cover.png (outside of the classes' folders)", "dog/notes.txt (not an"):
        assert part in note


def test_an_archive_has_labels_as_numbers_or_names(tmp_path):
    for labels, names in ((LABELS, ("0", "1", "2")), (np.array(NAMES)[LABELS], NAMES)):
        np.savez(tmp_path / "a.npz", inputs=IMAGES, labels=labels)
        source = open_classes(f"npz:{tmp_path / 'a.npz'}", 64)
        assert (source.names, source.shape) == (names, (17, 19))  # an archive's images keep their size
        assert np.array_equal(source.labels, LabelledImages("mine", IMAGES, LABELS, NAMES).labels)


def test_generated_images_have_the_size_that_is_asked_for(monkeypatch):
    monkeypatch.setattr("train.data.classes.synthetic_shapes", lambda size: (IMAGES, LABELS, NAMES, [str(size)]))
    assert open_classes("synthetic", 48).notes == ("48",)


def test_another_label_name_or_pixel_is_another_set():
    changed = IMAGES.copy()
    changed[22, 16, 18, 2] ^= 1
    other = LABELS.copy()
    other[np.flatnonzero(LABELS == 0)[0]] = 2
    sets = [
        (IMAGES, LABELS, NAMES),
        (changed, LABELS, NAMES),
        (IMAGES, other, NAMES),
        (IMAGES, LABELS, ("a", "b", "c")),
    ]
    assert len({str(LabelledImages("mine", *each).identity) for each in sets}) == 4
    assert LabelledImages("mine", *sets[0]).identity == LabelledImages("mine", *sets[0]).identity


def named(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return f"npz:{tmp_path / 'a.npz'}"


BAD = {
    "floats": (IMAGES / 255, LABELS, "uint8 (n, h, w, 3), are needed, got float64 (23, 17, 19, 3)"),
    "grey": (IMAGES[..., 0], LABELS, "uint8 (n, h, w, 3), are needed, got uint8 (23, 17, 19)"),
    "small": (
        IMAGES[:, :15],
        LABELS,
        "at least 16x16 pixels, uint8 (n, h, w, 3), are needed, got uint8 (23, 15, 19, 3)",
    ),
    "count": (IMAGES[:19], LABELS, "labels must be one for each of the 19 images, at least 5: whole"),
    "a number": (np.uint8(3), LABELS, "labels must be one for each of the 1 images, at least 5: whole"),
    "a gap": (IMAGES, LABELS * 2, "whole numbers from 0 without gaps, or names, of at least 2 classes"),
    "one class": (IMAGES, LABELS * 0, "of at least 2 classes, got int32 (23,) of 0"),
    "a single image": (
        IMAGES,
        np.arange(23) // 22,
        "at least 2 classes with at least 2 images each are needed, got 1 of class 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_an_archive_of_something_else_is_an_error_of_one_line(tmp_path, name):
    images, labels, message = BAD[name]
    data = named(tmp_path, inputs=images, labels=labels)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        open_classes(data, 64)
    assert str(caught.value).startswith(f"{data}: ")
    assert "\n" not in str(caught.value)


def test_a_folder_needs_classes_of_two_readable_images(photos):
    (photos / "fly").mkdir()
    save(photos / "eel" / "a.png", 0)
    (photos / "eel" / "b.png").write_text("no image")
    message = "each are needed, got 1 of class eel, 0 of class fly; folder:"
    with pytest.raises(ValueError, match=message) as caught:
        read_classes(str(photos), 24)
    assert "eel/b.png (not an image of a known format)" in str(caught.value)


def test_a_folder_without_classes_or_with_one_is_refused(tmp_path):
    for i in range(5):
        save(tmp_path / f"{i}.png", i)
    with pytest.raises(ValueError, match=r": a subfolder per class is needed, got none$"):
        read_classes(str(tmp_path), 24)
    for i in range(5):
        save(tmp_path / "dog" / f"{i}.png", i)
    with pytest.raises(ValueError, match="images each are needed, got one class, dog; folder:"):
        read_classes(str(tmp_path), 24)
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        open_classes(f"folder:{tmp_path}/none", 24)


@pytest.mark.parametrize("data", ["stl10", "npz:", "folder:", "folder", "synthetic:3", ""])
def test_other_kinds_are_refused(data):
    message = f"^--data must be synthetic, folder:PATH or npz:PATH for classes of images, got '{data}'$"
    with pytest.raises(ValueError, match=message):
        open_classes(data, 64)
