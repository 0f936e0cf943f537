import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn import functional as F

from flax_attn import ops
from flax_attn.testing import tolerance

CLOSE = tolerance("input gradient", "float32")


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_windows_go_row_by_row_and_the_maps_of_a_batch_follow_each_other():
    x = random(2, 4, 9, 5)
    windows = np.asarray(ops.window_partition(jnp.asarray(x), (2, 3)))
    assert windows.shape == (12, 6, 5)
    for number, window in enumerate(windows):
        image, row, column = number // 6, number % 6 // 3 * 2, number % 3 * 3
        np.testing.assert_array_equal(window, x[image, row : row + 2, column : column + 3].reshape(6, 5))
    np.testing.assert_array_equal(ops.window_reverse(jnp.asarray(windows), (2, 3), (4, 9)), x)


@pytest.mark.parametrize("use", [ops.window_partition, lambda x, size: ops.window_reverse(x, size, (4, 9))])
@pytest.mark.parametrize("window_size", [(3, 3), (2, 2)])
def test_windows_must_divide_the_map(use, window_size):
    message = f"window_size must divide the map's height and width (4, 9), got {window_size}"
    with pytest.raises(ValueError, match=re.escape(message)):
        use(jnp.ones((2, 4, 9, 5)), window_size)


@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (2, 2, 0), (5, 3, 2), (8, 4, 2)])
def test_unfold_and_fold_are_pytorchs(kernel_size, stride, padding):
    x = random(2, 5, 8, 12)
    ours = ops.unfold(jnp.asarray(x.transpose(0, 2, 3, 1)), kernel_size, stride, padding)
    theirs = F.unfold(torch.from_numpy(x), kernel_size, padding=padding, stride=stride)
    in_their_order = jnp.transpose(ours, (0, 5, 3, 4, 1, 2)).reshape(theirs.shape)
    np.testing.assert_array_equal(in_their_order, theirs)
    back = F.fold(theirs * 2, (8, 12), kernel_size, padding=padding, stride=stride)
    np.testing.assert_allclose(
        ops.fold(2 * ours, (8, 12), stride, padding).transpose(0, 3, 1, 2),
        back,
        rtol=CLOSE,
        atol=CLOSE,
    )


def test_a_map_below_a_window_has_none():
    with pytest.raises(ValueError, match=re.escape("x must have h and w >= 3 for its windows, got (1, 2, 7, 3)")):
        ops.unfold(jnp.ones((1, 2, 7, 3)), 5, padding=1)


def test_the_index_of_relative_positions():
    height, width = 3, 4
    index = ops.relative_position_index((height, width))
    for query, key in np.ndindex(12, 12):
        down, right = query // width - key // width, query % width - key % width
        assert index[query, key] == (down + height - 1) * (2 * width - 1) + right + width - 1
    assert index[0, -1] == 0
    assert index.max() == 34


@pytest.mark.parametrize("scale_positions", [False, True])
def test_relative_attention_adds_to_the_scores_of_pairs(scale_positions):
    query, key, value = random(2, 3, 5, 4, 6), random(2, 7, 8, 4, 6) / 2, random(2, 7, 8, 4, 9)
    height_rel, width_rel = random(13, 6), random(15, 6) / 3
    keep = np.random.default_rng(1).random((2, 4, 15, 56)) < 0.8
    arrays = map(jnp.asarray, (query, key, value, height_rel, width_rel))
    out, weights = ops.relative_attention(*arrays, scale_positions=scale_positions, mask=jnp.asarray(keep))
    scores = np.zeros((2, 4, 3, 5, 7, 8))
    for y, x, j, i in np.ndindex(3, 5, 7, 8):
        content = np.sum(query[:, y, x] * key[:, j, i], axis=-1)
        position = query[:, y, x] @ (height_rel[j - y + 6] + width_rel[i - x + 7])
        scores[:, :, y, x, j, i] = content / 6**0.5 + position / (6**0.5 if scale_positions else 1)
    expected = softmax(np.where(keep, scores.reshape(2, 4, 15, 56), -1e9), axis=-1)
    np.testing.assert_allclose(weights, expected, rtol=tolerance("training error", "float32"), atol=CLOSE)
    summed = np.einsum("bhqk,bkhd->bqhd", expected, value.reshape(2, 56, 4, 9))
    np.testing.assert_allclose(out, summed, rtol=tolerance("training error", "float32"), atol=CLOSE)


def test_what_is_for_one_map_is_repeated_for_all():
    repeated = ops.repeat_windows(jnp.arange(6).reshape(2, 3), 4)
    assert repeated.tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5]]


def test_fold_can_be_differentiated():
    windows = jnp.asarray(random(1, 3, 4, 3, 3, 2))
    gradient = jax.grad(lambda x: jnp.sum(ops.fold(x, (3, 4), padding=1) ** 2) / 2)(windows)
    np.testing.assert_allclose(
        gradient,
        ops.unfold(ops.fold(windows, (3, 4), padding=1), 3, padding=1),
        rtol=CLOSE,
    )
