import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn import OutlookAttention
from flax_attn.testing import relative_error, tolerance


def by_hand(weights, x, heads, k, padding, stride):
    """One image (h, w, dim): each place adds to every place of its window a mix of the values in the window."""
    h, w, dim = x.shape
    d = dim // heads
    values = np.pad(x @ weights["v.weight"].T, ((padding, padding), (padding, padding), (0, 0)))
    out = np.zeros_like(values)
    for row, column in np.ndindex(-(-h // stride), -(-w // stride)):
        top, left = row * stride, column * stride
        pooled = x[top : top + stride, left : left + stride].mean((0, 1))
        scores = (weights["attn.weight"] @ pooled + weights["attn.bias"]).reshape(heads, k * k, k * k)
        mixing = softmax(scores / np.sqrt(d), axis=-1)
        window = values[top : top + k, left : left + k].reshape(k * k, heads, d)
        mixed = np.einsum("hqk,khd->qhd", mixing, window)
        out[top : top + k, left : left + k] += mixed.reshape(k, k, dim)
    out = out[padding : padding + h, padding : padding + w]
    return out @ weights["proj.weight"].T + weights["proj.bias"]


@pytest.mark.parametrize(("kernel_size", "padding", "stride"), [(3, 1, 1), (3, 1, 2), (5, 2, 3)])
def test_against_numpy(kernel_size, padding, stride):
    with jax.enable_x64(True):
        arguments = (6, 2, kernel_size, padding, stride)
        block = OutlookAttention(*arguments, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        x = np.random.default_rng(0).standard_normal((1, 5, 8, 6))
        out = np.asarray(block(jnp.asarray(x)))[0]
        expected = by_hand(flax_attn.to_torch(block), x[0], *arguments[1:])
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_entries_are_timms():
    entries = flax_attn.to_torch(OutlookAttention(32, 4, rngs=nnx.Rngs(0)))
    assert {name: array.shape for name, array in entries.items()} == {
        "v.weight": (32, 32),
        "attn.weight": (324, 32),
        "attn.bias": (324,),
        "proj.weight": (32, 32),
        "proj.bias": (32,),
    }
    assert sum(array.size for array in entries.values()) == 12772


def test_another_port_swaps_padding_and_dilation():
    """fightingcv_attention gives the padding to `Unfold` as its dilation: the same for 1 and 1, otherwise no call."""
    from fightingcv_attention.attention.OutlookAttention import OutlookAttention as Port

    x = torch.zeros(1, 8, 8, 6)
    assert Port(6, 2)(x).shape == x.shape
    with pytest.raises(RuntimeError):
        Port(6, 2, kernel_size=5, padding=2)(x)


def test_a_map_of_one_place():
    assert OutlookAttention(4, 2, rngs=nnx.Rngs(0))(jnp.ones((1, 1, 1, 4))).shape == (1, 1, 1, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 4), "num_heads must divide dim=6, got 4"),
        ((6, 2, 0), "kernel_size must be a whole number >= 1, got 0"),
        ((6, 2, 3, -1), "padding must be a whole number >= 0, got -1"),
        ((6, 2, 3, 1, 0), "stride must be a whole number >= 1, got 0"),
        ((6, 2, 3, 1, 1, False, 2.0), "attn_drop must lie in [0, 1], got 2.0"),
        ((6, 2, 3, 1, 1, False, 0.0, 2.0), "proj_drop must lie in [0, 1], got 2.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        OutlookAttention(*arguments, rngs=nnx.Rngs(0))


def test_bad_maps():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, dim=6), got (2, 3, 6)")):
        OutlookAttention(6, 2, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 6)))
    message = "padding must give a window for each 1 rows and columns, (4, 5), got (2, 3) with 0"
    with pytest.raises(ValueError, match=re.escape(message)):
        OutlookAttention(6, 2, padding=0, rngs=nnx.Rngs(0))(jnp.ones((1, 4, 5, 6)))
    for shape, got in (((1, 4, 5, 6), "(2, 3), got (2, 2)"), ((1, 5, 4, 6), "(3, 2), got (2, 2)")):
        with pytest.raises(ValueError, match=re.escape(got)):
            OutlookAttention(6, 2, 2, 0, 2, rngs=nnx.Rngs(0))(jnp.ones(shape))
