"""The generated arrays and windows hold something to learn, where it is said to be, and no more than that."""

import numpy as np

from train.data.synthetic_arrays import synthetic_arrays
from train.data.synthetic_windows import synthetic_windows

COUNT, TRAIN = 499, 397


def linear(features, labels):
    """The test accuracy of a linear classifier on features (n, d)."""
    features = (features - features[:TRAIN].mean(0)) / features[:TRAIN].std(0)
    features, truth = np.c_[features, np.ones(len(features))], np.eye(labels.max() + 1)[labels]
    ridge = features[:TRAIN].T @ features[:TRAIN] + 5 * np.eye(features.shape[1])
    weights = np.linalg.solve(ridge, features[:TRAIN].T @ truth[:TRAIN])
    return ((features[TRAIN:] @ weights).argmax(1) == labels[TRAIN:]).mean()


def test_only_the_gate_can_tell_the_class_of_an_array():
    arrays, labels, _ = synthetic_arrays(COUNT)
    assert linear(arrays.mean((1, 2)), labels) < 0.3  # all that a classifier without a gate sees; chance is 0.17
    assert linear(arrays[:, 5, 7], labels) < 0.35
    assert linear(arrays.max((1, 2)), labels) > 0.9


def test_a_window_is_told_by_its_axes_and_its_motion_together():
    windows, labels, names = synthetic_windows(COUNT)
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
