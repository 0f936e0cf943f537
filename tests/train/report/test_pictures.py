"""The picture of a block, and the weights that belong to no place of the map."""

import numpy as np

from train.report.pictures import weights

SIZE = (1, 4, 6, 8)
RNG = np.random.default_rng(0)
PLACES = np.zeros((1, 4, 6), np.float32)
PLACES[0, 1, 2] = PLACES[0, 3, 5] = 0.5  # tokens 8 and 23


def test_of_places_the_weights_of_the_patch_are_shown():
    values = RNG.uniform(size=(1, 2, 24, 10))  # 2 heads, 10 keys: of a row and a column, say
    shown = weights("weights", values, SIZE, PLACES)
    assert (shown.title, shown.axes) == ("weights\nof the patch", ("key", "query"))
    np.testing.assert_array_equal(shown.values[0, 0], values[0].mean(0)[[8, 23]].mean(0))


def test_keys_of_a_smaller_map_are_shown_as_that_map():
    values = RNG.uniform(size=(1, 1, 24, 6))
    shown = weights("weights", values, SIZE, PLACES)
    np.testing.assert_array_equal(shown.values[0], values[0, 0, [8, 23]].mean(0).reshape(2, 3))


def test_queries_within_a_place_keep_their_rows():
    values = RNG.uniform(size=(1, 1, 24 * 9, 9))  # of windows of 3x3
    shown = weights("weights", values, SIZE, PLACES)
    expected = values[0, 0].reshape(24, 9, 9)[[8, 23]].mean(0)
    np.testing.assert_array_equal(shown.values[0], expected)


def test_of_windows_and_heads_the_mean_is_shown():
    values = RNG.uniform(size=(6, 2, 4, 16))
    shown = weights("weights", values, SIZE, PLACES)
    assert (shown.title, shown.axes) == ("weights\n(mean)", ("key", "query"))
    np.testing.assert_array_equal(shown.values[0], values.reshape(12, 4, 16).mean(0))


def test_of_branches_every_channel_is_shown():
    values = RNG.uniform(size=(1, 2, 8))
    shown = weights("weights", values, SIZE, PLACES)
    assert (shown.title, shown.axes) == ("weights", ("channel", "branch"))
    np.testing.assert_array_equal(shown.values, values)
