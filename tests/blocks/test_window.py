import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn import ShiftedWindowAttention, WindowAttention, ops
from flax_attn.testing import relative_error, tolerance
from torch_ref.blocks import window as twins


def by_hand(weights, windows, heads, size, added):
    """Window by window, head by head and pair by pair; ``added`` is (windows of a map, n, n)."""
    b, n, dim = windows.shape
    d = dim // heads
    qkv = windows @ weights["qkv.weight"].T + weights["qkv.bias"]
    out = np.zeros((b, n, dim))
    for window, head in np.ndindex(b, heads):
        q, k, v = (qkv[window, :, i * dim + head * d :][:, :d] for i in range(3))
        scores = q @ k.T / np.sqrt(d) + added[window % len(added)]
        for query, key in np.ndindex(n, n):
            down, right = query // size[1] - key // size[1], query % size[1] - key % size[1]
            row = (down + size[0] - 1) * (2 * size[1] - 1) + right + size[1] - 1
            scores[query, key] += weights["relative_position_bias_table"][row, head]
        out[window, :, head * d :][:, :d] = softmax(scores, axis=1) @ v
    return out @ weights["proj.weight"].T + weights["proj.bias"]


def loud(block):
    """With a table of ordinary size: it starts near zero, where nothing of it would show."""
    shape = block.relative_position_bias_table.shape
    block.relative_position_bias_table[...] = jnp.asarray(np.random.default_rng(1).standard_normal(shape))
    return block


@pytest.mark.parametrize("given", ["nothing", "mask", "bias"])
def test_windows_against_numpy(given):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        block = loud(WindowAttention(6, 3, window_size=(2, 3), param_dtype=jnp.float64, rngs=nnx.Rngs(0)))
        x, keep, bias = rng.standard_normal((6, 6, 6)), rng.random((3, 6, 6)) < 0.7, rng.standard_normal((3, 6, 6))
        keep |= np.eye(6, dtype=bool)
        arguments = {"mask": {"mask": jnp.asarray(keep)}, "bias": {"bias": jnp.asarray(bias)}}.get(given, {})
        added = {"mask": np.where(keep, 0, -np.inf), "bias": bias}.get(given, np.zeros((1, 6, 6)))
        out = np.asarray(block(jnp.asarray(x), **arguments))
        expected = by_hand(flax_attn.to_torch(block), x, 3, (2, 3), added)
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_a_shifted_map_against_numpy():
    """Pixels attend within a window of the shifted, padded map, and within the part of it that was together before."""
    size, shift, x = (2, 3), (1, 2), np.random.default_rng(0).standard_normal((2, 5, 7, 6))
    with jax.enable_x64(True):
        block = loud(ShiftedWindowAttention(6, size, shift, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0)))
        out, weights = np.asarray(block(jnp.asarray(x))), flax_attn.to_torch(block)
    padded = np.pad(x, ((0, 0), (0, 1), (0, 2), (0, 0)))
    expected = np.zeros_like(padded)
    for row, column in np.ndindex(3, 3):
        rows, columns = np.arange(2) + 2 * row + 1, np.arange(3) + 3 * column + 2  # of the padded map
        part = np.add.outer(rows >= 6, 2 * (columns >= 9)).ravel()
        apart = np.where(part[:, None] == part[None], 0, -100.0)[None]
        here = np.ix_(range(2), rows % 6, columns % 9)
        window = by_hand(weights, padded[here].reshape(2, 6, 6), 3, size, apart)
        expected[here] = window.reshape(2, 2, 3, 6)
    assert relative_error(out, expected[:, :5, :7]) <= tolerance("output", "float64")


def test_an_axis_of_one_window_is_not_shifted():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 4, 4)))
    blocks = [ShiftedWindowAttention(4, (3, 4), shift, 2, rngs=nnx.Rngs(0)) for shift in ((2, 3), (0, 0))]
    np.testing.assert_array_equal(*(block(x) for block in blocks))


def test_entries_are_those_of_timm_and_torchvision():
    plain = flax_attn.to_torch(WindowAttention(32, 4, window_size=(3, 4), rngs=nnx.Rngs(0)))
    assert {name: array.shape for name, array in plain.items()} == {
        "relative_position_bias_table": (35, 4),
        "qkv.weight": (96, 32),
        "qkv.bias": (96,),
        "proj.weight": (32, 32),
        "proj.bias": (32,),
    }
    assert sum(array.size for array in plain.values()) == 4364
    shifted = flax_attn.to_torch(ShiftedWindowAttention(32, (3, 4), (1, 2), 4, rngs=nnx.Rngs(0)))
    assert shifted.keys() - plain.keys() == {"relative_position_index"}
    expected = twins.ShiftedWindowAttention(32, (3, 4), (1, 2), 4).relative_position_index
    np.testing.assert_array_equal(shifted["relative_position_index"], expected)


@pytest.mark.parametrize("build", [lambda: WindowAttention(4, 2, window_size=2, rngs=nnx.Rngs(0)), None])
def test_buffers_of_checkpoints_are_ignored(build):
    """Of the authors, who save them all, of torchvision, and of timm, which saves none."""
    block = build() if build else ShiftedWindowAttention(4, (2, 2), (1, 1), 2, rngs=nnx.Rngs(0))
    weights = flax_attn.to_torch(block)
    weights.pop("relative_position_index", None)
    flax_attn.from_torch(block, weights)
    flax_attn.from_torch(block, {**weights, "relative_position_index": torch.zeros(4, 4), "attn_mask": torch.ones(3)})
    np.testing.assert_array_equal(flax_attn.to_torch(block)["qkv.weight"], weights["qkv.weight"])


def test_the_table_starts_near_zero():
    table = WindowAttention(32, 4, rngs=nnx.Rngs(0)).relative_position_bias_table[...]
    assert 0.015 < float(jnp.std(table)) < 0.025


def test_weights_are_recorded_per_window():
    block = ShiftedWindowAttention(4, (2, 3), (1, 1), 2, rngs=nnx.Rngs(0))
    (weights,) = ops.attention_maps(block, jnp.ones((2, 4, 6, 4))).values()
    assert weights.shape == (8, 2, 6, 6)


def test_no_array_of_all_pairs_of_pixels():
    block = ShiftedWindowAttention(4, (2, 2), (1, 1), 2, rngs=nnx.Rngs(0))
    program = str(jax.make_jaxpr(block)(jnp.ones((1, 16, 16, 4))))
    assert "256,256" not in program


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda **r: WindowAttention(6, 4, **r), "num_heads must divide dim=6, got 4"),
        (lambda **r: WindowAttention(6, 3, 0, **r), "head_dim must be a whole number >= 1, got 0"),
        (lambda **r: WindowAttention(6, 3, window_size=0, **r), "window_size[0] must be a whole number >= 1, got 0"),
        (
            lambda **r: WindowAttention(6, 3, window_size=(2,), **r),
            "window_size must be a height and a width, got (2,)",
        ),
        (lambda **r: WindowAttention(6, 3, proj_drop=2, **r), "proj_drop must lie in [0, 1], got 2"),
        (
            lambda **r: ShiftedWindowAttention(6, (2, 3), (1, 3), 3, **r),
            "shift_size must be below window_size=(2, 3), got (1, 3)",
        ),
        (
            lambda **r: ShiftedWindowAttention(6, (2, 3), (-1, 1), 3, **r),
            "shift_size[0] must be a whole number >= 0, got -1",
        ),
        (
            lambda **r: ShiftedWindowAttention(6, (2, 3), (1, 1), 3, dropout=-1, **r),
            "dropout must lie in [0, 1], got -1",
        ),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(4, 5, 6)], "x must have shape (b, n=4, dim=6), got (4, 5, 6)"),
        ([(4, 4, 6), (2, 4, 3)], "mask must have shape (windows, n=4, n=4), got (2, 4, 3)"),
        ([(4, 4, 6), (3, 4, 4)], "mask must be for a number of windows that divides 4, got 3"),
    ],
)
def test_bad_shapes(shapes, message):
    block = WindowAttention(6, 3, window_size=2, rngs=nnx.Rngs(0))
    x, *masks = shapes
    with pytest.raises(ValueError, match=re.escape(message)):
        block(jnp.ones(x), *(jnp.ones(mask, bool) for mask in masks))


def test_bad_masks():
    block, x = WindowAttention(6, 3, window_size=2, rngs=nnx.Rngs(0)), jnp.ones((4, 4, 6))
    with pytest.raises(ValueError, match="mask must be of booleans or integers"):
        block(x, jnp.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="bias must be of floats"):
        block(x, bias=jnp.zeros((2, 4, 4), int))
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, dim=6), got (4, 4, 6)")):
        ShiftedWindowAttention(6, (2, 2), (1, 1), 3, rngs=nnx.Rngs(0))(x)
