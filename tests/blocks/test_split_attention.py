import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn import SplitAttention
from flax_attn.testing import relative_error, tolerance


def count(block):
    return sum(array.size for array in jax.tree.leaves(nnx.state(block, nnx.Param)))


def grouped(x, weights, name, groups):
    """A layer per pixel (..., c) on each group of channels."""
    parts = zip(np.split(x, groups, -1), np.split(weights[f"{name}.weight"][..., 0, 0], groups), strict=True)
    return np.concatenate([part @ matrix.T for part, matrix in parts], -1) + weights.get(f"{name}.bias", 0)


def test_against_numpy():
    """With 1x1 kernels, two groups and three maps: which weight is whose depends on the order of both."""
    groups, radix, x = 2, 3, np.random.default_rng(0).standard_normal((2, 4, 5, 12))
    with jax.enable_x64(True):
        block = SplitAttention(
            12, 8, 1, groups=groups, rd_channels=4, radix=radix, param_dtype="float64", rngs=nnx.Rngs(0)
        )
        out, weights = np.asarray(block(jnp.asarray(x))), flax_attn.to_torch(block)
    maps = np.maximum(grouped(x, weights, "conv", groups * radix), 0).reshape(2, 4, 5, radix, groups, 4)
    hidden = np.maximum(grouped(maps.sum(3).mean((1, 2)).reshape(2, 8), weights, "fc1", groups), 0)
    shares = softmax(grouped(hidden, weights, "fc2", groups).reshape(2, groups, radix, 4), axis=2)
    expected = np.einsum("bhwrgc,bgrc->bhwgc", maps, shares).reshape(2, 4, 5, 8)
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_one_map_has_a_sigmoid():
    block = SplitAttention(6, radix=1, rngs=nnx.Rngs(0))
    weights = flax_attn.attention_maps(block, jnp.ones((2, 3, 5, 6)))["weights"]
    assert weights.shape == (2, 1, 6)
    assert 0 < weights.min() < weights.max() < 1


@pytest.mark.parametrize(("arguments", "expected"), [({}, 12384), ({"norm": True}, 12576)])
def test_sizes_are_timms(arguments, expected):
    assert count(nnx.eval_shape(lambda: SplitAttention(32, rngs=nnx.Rngs(0), **arguments))) == expected


@pytest.mark.parametrize(
    ("channels", "arguments", "hidden"), [(64, {}, 32), (72, {}, 40), (32, {"rd_channels": 5}, 10)]
)
def test_the_hidden_width(channels, arguments, hidden):
    block = nnx.eval_shape(lambda: SplitAttention(channels, rngs=nnx.Rngs(0), **arguments))
    assert block.fc1.out_features == hidden


def test_padding_follows_the_kernel_and_not_the_dilation():
    assert SplitAttention(4, dilation=2, stride=2, rngs=nnx.Rngs(0))(jnp.ones((1, 7, 8, 4))).shape == (1, 3, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number >= 1, got 0"),
        ({"out_channels": 0}, "out_channels must be a whole number >= 1, got 0"),
        ({"radix": 0}, "radix must be a whole number >= 1, got 0"),
        ({"rd_ratio": 0}, "rd_ratio must be a finite number above 0, got 0"),
        ({"rd_channels": 0}, "rd_channels must be a whole number >= 1, got 0"),
        ({"padding": -1}, "padding must be a whole number >= 0"),
        (
            {"groups": 2, "radix": 3},
            "groups must divide out_channels=8 and the 32 hidden channels, and groups * radix in_channels=8, got "
            "groups=2 and radix=3",
        ),
        ({"groups": 2, "out_channels": 7}, "groups must divide out_channels=7 and the 32 hidden channels"),
        ({"groups": 4, "rd_channels": 3}, "groups must divide out_channels=8 and the 6 hidden channels"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SplitAttention(**{"in_channels": 8, **arguments}, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 5, 6), "x must have shape (b, h, w, c=4), got (2, 3, 5, 6)"),
        ((2, 2, 5, 4), "x must have h >= 3 for a kernel that spans 3, got 2"),
        ((2, 5, 1, 4), "x must have w >= 3 for a kernel that spans 3, got 1"),
    ],
)
def test_bad_shapes(shape, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SplitAttention(4, padding=0, rngs=nnx.Rngs(0))(jnp.ones(shape))
