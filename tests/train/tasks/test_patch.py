"""Where patches are, and that nothing but (seed, split, epoch, image index) decides it."""

import jax
import numpy as np
import pytest

from train.tasks.patch import TEST, TRAIN, Patches, article_patches, paint, per_image_patches, split_key

HEIGHT, WIDTH = 37, 53
INDICES = np.arange(4000)


def draw(split=TRAIN, epoch=0, indices=INDICES, seed=0, height=HEIGHT, width=WIDTH):
    key = split_key(jax.random.key(seed), split, epoch)
    return Patches(*map(np.asarray, per_image_patches(key, indices, height, width)))


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_the_article_draws_what_its_code_draws():
    patches = article_patches(10, 96, 96)
    places = [(int(r), int(c)) if y else None for y, r, c in zip(*patches, strict=True)]
    assert "".join(map(str, patches.label.tolist())) == "1110101101"
    assert places == [(15, 64), (63, 55), (27, 6), None, (12, 22), None, (69, 65), (15, 6), None, (40, 19)]


def test_the_article_draws_by_place_in_the_batch_alone():
    assert same(article_patches(4, 96, 96), [values[:4] for values in article_patches(10, 96, 96)])


def test_the_article_leaves_numpys_global_generator_alone():
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    article_patches(3, 96, 96)
    assert np.random.rand() == expected


def test_per_image_does_not_depend_on_batch_or_order():
    whole = draw()
    some = np.array([3001, 17, 17, 0])
    assert same(draw(indices=some), [values[some] for values in whole])
    assert same(draw(indices=some[2:3]), [values[17:18] for values in whole])


def test_patches_are_the_same_in_64_bit_mode():
    narrow = draw(indices=INDICES[:97])
    with jax.enable_x64(True):
        assert same(draw(indices=INDICES[:97]), narrow)


def test_training_patches_are_fresh_each_epoch_and_test_patches_stay():
    assert not same(draw(TRAIN, 0), draw(TRAIN, 1))
    assert same(draw(TEST, 0), draw(TEST, 1))
    assert not same(draw(TRAIN, 0), draw(TEST, 0))
    assert not same(draw(seed=0), draw(seed=1))


def test_half_of_the_images_have_a_patch_and_corners_fill_their_range():
    patches = draw()
    assert 0.46 < patches.label.mean() < 0.54
    assert (patches.row.min(), patches.row.max()) == (0, HEIGHT - 17)
    assert (patches.column.min(), patches.column.max()) == (0, WIDTH - 17)
    # uniform: each of the 21 rows in 1/21 of the images
    assert np.bincount(patches.row).max() < 1.4 * len(INDICES) / (HEIGHT - 16)
    # independent of one another
    assert abs(np.corrcoef([patches.label, patches.row, patches.column])[np.triu_indices(3, 1)]).max() < 0.06


@pytest.mark.parametrize("corner", [(0, 0), (HEIGHT - 17, 0), (0, WIDTH - 17), (HEIGHT - 17, WIDTH - 17)])
def test_a_patch_is_16_by_16_wherever_it_is(corner):
    images = np.full((2, HEIGHT, WIDTH, 3), 255, np.uint8)
    row, column = (np.array([value] * 2) for value in corner)
    x = np.asarray(paint(images, Patches(np.array([1, 0]), row, column)))
    white = np.argwhere((x[0] == 1).all(-1))
    assert len(white) == 256
    assert white.min(0).tolist() == list(corner)
    assert white.max(0).tolist() == [corner[0] + 15, corner[1] + 15]
    assert x[1].max() == (255 - 128) / 128


def test_an_image_as_small_as_a_patch_has_one_place_for_it():
    patches = draw(height=16, width=16)
    assert patches.row.max() == patches.column.max() == 0
    assert article_patches(3, 16, 16).row.tolist() == [0, 0, 0]


def test_images_are_scaled_as_in_the_article():
    images = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    x = np.asarray(paint(images, Patches(*np.zeros((3, 1), int))))
    assert np.array_equal(x, (images.astype(np.float32) - 128) / 128)
