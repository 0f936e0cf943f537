"""The numbers, against maps made by hand and counting pixel by pixel."""

import math

import numpy as np
import pytest

from flax_attn.testing import relative_error, tolerance
from train.look.scores import (
    Localisation,
    average_precision,
    combine,
    pointing,
    relative_energy,
    score,
)
from train.tasks.patch import Patches

CLOSE = tolerance("output", "float64")
HEIGHT, WIDTH = 6, 7  # of maps of images with 24 by 29 pixels: the last column belongs to no cell


def patches_at(*corners):
    rows, columns = zip(*corners, strict=True)
    return Patches(np.ones(len(corners), int), np.array(rows), np.array(columns))


EVERYWHERE = patches_at(*((row, column) for row in range(8) for column in range(13)))


def painted():
    image = np.zeros((len(EVERYWHERE.row), 24, 29))
    for canvas, row, column in zip(image, EVERYWHERE.row, EVERYWHERE.column, strict=True):
        canvas[row : row + 16, column : column + 16] = 1
    return image


def test_scores_count_the_pixels_of_the_patch():
    maps = np.random.default_rng(0).normal(size=(len(EVERYWHERE.row), HEIGHT, WIDTH))
    maps[::2] = np.round(maps[::2])  # with several peaks
    inside = painted()[:, 2::4, 2::4] == 1  # the centre of a cell is the pixel below and right of its middle
    assert set(inside.sum((1, 2))) == {16}
    covered = painted()[..., :28].reshape(-1, 6, 4, 7, 4).mean((2, 4))
    hits, energy, peaks = score(maps, EVERYWHERE).T
    assert np.array_equal(hits, pointing(maps, inside))
    assert np.array_equal(energy, relative_energy(maps, covered))
    assert np.array_equal(peaks, maps.max((1, 2)))


def test_the_pointing_game():
    maps = np.zeros((4, HEIGHT, WIDTH))
    maps[0, 1, 2] = 0.5  # in the patch
    maps[1, 0, 2] = 0.5  # above it
    maps[2, 1, 2] = maps[2, 4, 5] = maps[2, 5, 6] = 3.0  # one of three
    maps[3] = -1.0  # no peak at all: chance
    assert score(maps, patches_at(*[(3, 5)] * 4))[:, 0].tolist() == [1, 0, 1 / 3, 16 / 42]


def test_energy_of_the_positive_part():
    maps = np.full((3, HEIGHT, WIDTH), -7.0)
    maps[0, 1, 1], maps[0, 5, 5] = 3.0, 1.0
    maps[2] = 2.0
    share = 16 / 42
    energy = score(maps, patches_at(*[(2, 4)] * 3))[:, 1]
    assert relative_error(energy, np.array([3 / 4 / share, 0, 1])) <= CLOSE


def by_thresholds(score, label):
    """Precision and recall at every threshold, from their definitions."""
    area, before = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        called = score >= threshold
        recall = (called & label).sum() / label.sum()
        area, before = area + (recall - before) * (called & label).sum() / called.sum(), recall
    return area


@pytest.mark.parametrize("levels", [3, 7, 1000])
def test_average_precision_is_the_sum_over_thresholds(levels):
    rng = np.random.default_rng(levels)
    score, label = rng.integers(0, levels, 101) / levels, rng.uniform(size=101) < 0.4
    assert abs(average_precision(score, label) - by_thresholds(score, label)) <= CLOSE


def test_average_precision_by_hand():
    label = np.array([0, 1, 1, 0, 0])
    assert average_precision(np.array([1.0, 3, 2, 0, -1]), label) == 1
    assert average_precision(np.array([3.0, 2, 1, 0, -1]), label) == (1 / 2 + 2 / 3) / 2
    assert average_precision(np.zeros(5), label) == 2 / 5  # all at once: the share of images with a patch
    assert math.isnan(average_precision(np.zeros(5), np.zeros(5)))
    assert math.isnan(average_precision(np.zeros(0), np.zeros(0)))


def test_images_without_a_patch_count_for_average_precision_alone():
    maps = np.zeros((3, HEIGHT, WIDTH))
    maps[0, 1, 2], maps[1, 0, 0], maps[2, 1, 2] = 5, 9, 1
    judged = score(maps, patches_at((4, 5), (4, 5), (4, 5)))
    scores = combine(judged, np.array([1, 0, 1]))
    assert (scores.pointing, scores.patched, scores.images) == (1, 2, 3)
    assert abs(scores.energy - 42 / 16) <= CLOSE
    assert scores.average_precision == (1 / 2 + 2 / 3) / 2


def test_nothing_to_judge_is_no_number():
    judged = score(np.zeros((2, HEIGHT, WIDTH)), patches_at((4, 5), (4, 5)))
    scores = combine(judged, np.array([0, 0]))
    assert all(map(math.isnan, (scores.pointing, scores.energy, scores.average_precision)))
    assert isinstance(scores, Localisation)
