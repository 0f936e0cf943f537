"""Arrays with labels: normalised, checked and streamed; the generated ones hold something to learn."""

import re

import numpy as np
import pytest

from flax_attn.testing import tolerance
from train.config import Config
from train.data.feed import Feed
from train.data.labelled import Labelled
from train.data.synthetic_labelled import synthetic_arrays, synthetic_windows
from train.devices import Layout
from train.tasks.labelled import ARRAYS, WINDOWS, ChannelTask, SensorTask

COUNT, CLASSES = 23, 3
WINDOWS_OF = np.random.default_rng(0).normal(5, 2, (COUNT, 13, 7))
ARRAYS_OF = np.random.default_rng(0).normal(5, 2, (COUNT, 5, 7, 11))
LABELS = np.arange(COUNT) % CLASSES
CLOSE = tolerance("output", "float32")


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return f"npz:{tmp_path / 'a.npz'}"


def test_the_first_four_fifths_train(tmp_path):
    opened = SensorTask().open(saved(tmp_path, inputs=WINDOWS_OF, labels=LABELS))
    assert (opened.train, opened.test, opened.classes) == (range(18), range(18, 23), 3)
    assert opened.labels.tolist() == LABELS.tolist()
    assert opened.described == "windows of 13x7 in 3 classes"


def test_sensors_are_normalised_by_the_training_windows_alone(tmp_path):
    later = np.concatenate([WINDOWS_OF[:18], 100 * WINDOWS_OF[18:]])
    opened = [Labelled("a", WINDOWS, inputs, LABELS) for inputs in (WINDOWS_OF, later)]
    for one in opened:
        train = one.records[:18].astype(np.float64)
        np.testing.assert_allclose(train.mean((0, 1)), 0, atol=CLOSE)
        np.testing.assert_allclose(train.std((0, 1)), 1, atol=CLOSE)
    np.testing.assert_array_equal(opened[0].records[:18], opened[1].records[:18])


def test_channels_are_scaled_and_keep_their_zero():
    inputs = ARRAYS_OF * (np.arange(11) > 0)
    opened = Labelled("a", ARRAYS, inputs, LABELS)
    assert (opened.records[..., 0] == 0).all()  # and nothing is divided by zero
    squares = np.square(opened.records[:18], dtype=np.float64).mean((0, 1, 2))
    np.testing.assert_allclose(squares[1:], 1, atol=CLOSE)
    assert (np.sign(opened.records) == np.sign(inputs)).all()
    assert opened.records.dtype == np.float32


def test_whole_numbers_are_numbers(tmp_path):
    opened = SensorTask().open(saved(tmp_path, inputs=(WINDOWS_OF * 9).astype(np.int16), labels=LABELS / 1))
    assert (opened.records.dtype, opened.labels.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize("dtype", ["U", "S"])
def test_names_as_labels_are_the_names_of_the_classes(tmp_path, dtype):
    names = np.array(["sit", "walk", "lie"]).astype(dtype)[LABELS]
    opened = SensorTask().open(saved(tmp_path, inputs=WINDOWS_OF, labels=names))
    assert opened.names == ("lie", "sit", "walk")
    assert [opened.names[label] for label in opened.labels] == names.astype(str).tolist()
    assert opened.labels.dtype == np.int32


def test_a_class_without_training_records_is_named(tmp_path):
    names = np.where(np.arange(COUNT) < 18, np.array(["sit", "walk"])[LABELS % 2], "lie")
    with pytest.raises(ValueError, match="the first 80 % have no windows of class lie; "):
        SensorTask().open(saved(tmp_path, inputs=WINDOWS_OF, labels=names))


BAD = {
    "no labels": ({"inputs": WINDOWS_OF}, "the archive must hold inputs and labels, got inputs"),
    "images": ({"images": WINDOWS_OF}, "the archive must hold inputs and labels, got images"),
    "objects": ({"inputs": np.array([None]), "labels": LABELS}, "plain arrays is needed, got: Object arrays"),
    "maps": (
        {"inputs": ARRAYS_OF, "labels": LABELS},
        "inputs must be real or whole numbers (n, series, sensors), got float64 (23, 5, 7, 11)",
    ),
    "no sensors": (
        {"inputs": WINDOWS_OF[..., :0], "labels": LABELS},
        "numbers (n, series, sensors), got float64 (23, 13, 0)",
    ),
    "words": ({"inputs": WINDOWS_OF.astype(str), "labels": LABELS}, "numbers (n, series, sensors), got <U"),
    "complex": ({"inputs": WINDOWS_OF * 1j, "labels": LABELS}, "numbers (n, series, sensors), got complex128"),
    "NaN": (
        {"inputs": changed(WINDOWS_OF, (7, 2, 3), np.nan), "labels": LABELS},
        "inputs must be finite in float32, got NaN or infinity in 1 of 23 windows, first in number 7",
    ),
    "too large": (
        {"inputs": WINDOWS_OF * 1e300, "labels": LABELS},
        "NaN or infinity in 23 of 23 windows, first in number 0",
    ),
    "count": (
        {"inputs": WINDOWS_OF, "labels": LABELS[:19]},
        "labels must be one for each of the 23 windows, at least 5: whole",
    ),
    "label axes": (
        {"inputs": WINDOWS_OF, "labels": LABELS[:, None]},
        "of at least 2 classes, got int64 (23, 1) of 0, 1, 2",
    ),
    "halves": (
        {"inputs": WINDOWS_OF, "labels": LABELS / 2},
        "without gaps, or names, of at least 2 classes, got float64 (23,) of 0.0, 0.5, 1.0",
    ),
    "NaN label": (
        {"inputs": WINDOWS_OF, "labels": changed(LABELS / 1, 4, np.nan)},
        "of at least 2 classes, got float64 (23,) of 0.0, 1.0, 2.0, nan",
    ),
    "infinite": (
        {"inputs": WINDOWS_OF, "labels": changed(LABELS / 1, 4, np.inf)},
        "of at least 2 classes, got float64 (23,) of 0.0, 1.0, 2.0, inf",
    ),
    "negative": ({"inputs": WINDOWS_OF, "labels": LABELS - 1}, "of at least 2 classes, got int64 (23,) of -1, 0, 1"),
    "a gap": ({"inputs": WINDOWS_OF, "labels": LABELS * 2}, "of at least 2 classes, got int64 (23,) of 0, 2, 4"),
    "many gaps": (
        {"inputs": WINDOWS_OF, "labels": np.arange(COUNT) * 2},
        "(23,) of 0, 2, 4, 6, 8, 10, 12, 14, ...",
    ),
    "one class": ({"inputs": WINDOWS_OF, "labels": LABELS * 0}, "of at least 2 classes, got int64 (23,) of 0"),
    "one name": (
        {"inputs": WINDOWS_OF, "labels": np.full(COUNT, "run")},
        "at least 2 classes, got <U3 (23,) of run",
    ),
    "none": ({"inputs": WINDOWS_OF[:0], "labels": LABELS[:0]}, "each of the 0 windows, at least 5: "),
    "few": ({"inputs": WINDOWS_OF[:4], "labels": LABELS[:4]}, "got int64 (4,) of 0, 1, 2"),
    "sorted": (
        {"inputs": WINDOWS_OF, "labels": np.where(np.arange(COUNT) < 18, LABELS % 2, 2)},
        "the first 80 % have no windows of class 2; shuffle them if they are sorted",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_an_archive_of_something_else_is_an_error_of_one_line(tmp_path, name):
    arrays, message = BAD[name]
    data = saved(tmp_path, **arrays)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        SensorTask().open(data)
    assert str(caught.value).startswith(f"{data}: ")
    assert "\n" not in str(caught.value)


def test_a_class_that_is_not_tested_is_told():
    opened = Labelled("mine", WINDOWS, WINDOWS_OF, np.where(np.arange(COUNT) < 18, LABELS, LABELS % 2))
    assert opened.notes == ("mine: the last 20 % have no windows of class 2; shuffle them if they are sorted",)
    assert Labelled("mine", WINDOWS, WINDOWS_OF, LABELS).notes == ()


@pytest.mark.parametrize("data", ["stl10", "folder:photos", "npz:", "npz", "synthetic:3", ""])
def test_other_kinds_are_for_images(data):
    with pytest.raises(ValueError, match=f"^--data must be synthetic or npz:PATH for arrays, got '{data}'$"):
        ChannelTask().open(data)
    with pytest.raises(FileNotFoundError, match=r"^npz:none\.npz: no such file$"):
        ChannelTask().open("npz:none.npz")


def test_another_label_or_number_is_another_set():
    digests = {
        Labelled("a", WINDOWS, inputs, labels).identity["digest"]
        for inputs in (WINDOWS_OF, changed(WINDOWS_OF, (22, 12, 6), 0.0))
        for labels in (LABELS, changed(LABELS, 22, 0))
    }
    assert len(digests) == 4


def test_labels_come_with_their_records_resident_or_streamed():
    opened, config = Labelled("a", WINDOWS, WINDOWS_OF, LABELS), Config(task="sensor", batch_size=5)
    feeds = [Feed(opened, config, Layout(5), streamed=streamed) for streamed in (False, True)]
    batches = [[*feed.train(1, 0), *feed.test()] for feed in feeds]
    feeds[1].close()
    assert [len(fed.labels) for fed in batches[0]] == [5] * 4
    for fed in (*batches[0], *batches[1]):
        indices = np.asarray(fed.indices)
        np.testing.assert_array_equal(fed.records, opened.records[indices])
        np.testing.assert_array_equal(fed.labels, LABELS[indices])
    assert [fed.indices.tolist() for fed in batches[0]] == [fed.indices.tolist() for fed in batches[1]]
    whole, steps = feeds[0].train_whole(1), [*feeds[0].train(1, 0)]
    for name in ("places", "indices", "labels"):
        np.testing.assert_array_equal(getattr(whole, name).T, [getattr(fed, name) for fed in steps])


DRAWN, TRAIN = 499, 397


def linear(features, labels):
    """The test accuracy of a linear classifier on features (n, d)."""
    features = (features - features[:TRAIN].mean(0)) / features[:TRAIN].std(0)
    features, truth = np.c_[features, np.ones(len(features))], np.eye(labels.max() + 1)[labels]
    ridge = features[:TRAIN].T @ features[:TRAIN] + 5 * np.eye(features.shape[1])
    weights = np.linalg.solve(ridge, features[:TRAIN].T @ truth[:TRAIN])
    return ((features[TRAIN:] @ weights).argmax(1) == labels[TRAIN:]).mean()


def test_only_the_gate_can_tell_the_class_of_an_array():
    arrays, labels, _ = synthetic_arrays(DRAWN)
    assert linear(arrays.mean((1, 2)), labels) < 0.3  # all that a classifier without a gate sees; chance is 0.17
    assert linear(arrays[:, 5, 7], labels) < 0.35
    assert linear(arrays.max((1, 2)), labels) > 0.9


def test_a_window_is_told_by_its_axes_and_its_motion_together():
    windows, labels, names = synthetic_windows(DRAWN)
    assert len(names) == labels.max() + 1 == 6
    means, spreads = windows.mean(1), windows.std(1)
    assert linear(windows[:, 11], labels) < 0.55
    assert linear(means, labels) < 0.6
    assert 0.65 < linear(np.c_[means, spreads], labels) < 0.95


def test_a_record_depends_on_the_seed_and_its_number_alone():
    for make in (synthetic_arrays, synthetic_windows):
        (few, labels, _), (more, same, _), (other, _, _) = make(3), make(5), make(3, seed=1)
        assert np.array_equal(few, more[:3])
        assert np.array_equal(labels, same[:3])
        assert not np.array_equal(few, other)


def test_the_sizes_are_those_of_the_docs():
    assert (synthetic_arrays(2)[0].shape, synthetic_arrays(2)[0].dtype) == ((2, 11, 13, 64), np.float32)
    assert (synthetic_windows(2)[0].shape, synthetic_windows(2)[0].dtype) == ((2, 64, 6), np.float32)
