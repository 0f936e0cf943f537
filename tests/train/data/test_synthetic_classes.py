"""Generated shapes: the same area, and nothing in their colours that tells which they are."""

import numpy as np
import pytest

from train.data.synthetic_classes import CONTRAST, REACH, SHAPES, synthetic_shapes

from .test_labelled import linear

DRAWN = 499


@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_have_the_same_area_and_stay_within_their_reach(shape):
    y, x = (np.indices((801, 801)) - 400) / 400
    inside = shape(x, y) < 0
    assert abs(inside.sum() / 400**2 - 1) < 0.005
    assert np.hypot(x, y)[inside].max() <= REACH + 0.001


def test_shapes_differ():
    y, x = (np.indices((101, 101)) - 50) / 50
    covered = np.stack([shape(x, y) < 0 for shape in SHAPES])
    for one, other in np.ndindex(len(SHAPES), len(SHAPES)):
        assert one == other or (covered[one] ^ covered[other]).mean() > 0.02


def test_colours_do_not_tell_the_class():
    images, labels, names = synthetic_shapes(DRAWN, size=32)
    assert len(names) == labels.max() + 1 == 6
    channels = np.stack([[np.bincount(band.ravel() // 32, minlength=8) for band in image.T] for image in images])
    joint = np.stack([np.bincount((image // 86 @ [9, 3, 1]).ravel(), minlength=27) for image in images])
    for counts in (channels.reshape(DRAWN, -1), joint):
        assert linear(counts + np.random.default_rng(0).random(counts.shape), labels) < 2 / 6


def test_a_shape_stands_out_from_its_ground():
    images, _, _ = synthetic_shapes(20)
    spread = np.ptp(images.astype(float), (1, 2)).max(-1)
    assert (spread > 255 * CONTRAST / 2).all()


def test_an_image_depends_on_the_seed_its_size_and_its_number_alone():
    (few, labels, _), (more, same, _), (other, _, _) = (
        synthetic_shapes(n, seed=s) for n, s in ((3, 0), (5, 0), (3, 1))
    )
    assert np.array_equal(few, more[:3])
    assert np.array_equal(labels, same[:3])
    assert not np.array_equal(few, other)
    assert (few.shape, few.dtype, labels.dtype) == ((3, 64, 64, 3), np.uint8, np.int32)
    assert synthetic_shapes(2, size=48)[0].shape == (2, 48, 48, 3)
