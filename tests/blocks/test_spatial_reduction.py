import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn import SpatialReductionAttention
from flax_attn.testing import relative_error, tolerance


def by_hand(weights, x, heads, ratio):
    """The keys of each r x r patch of the map, then attention head by head."""
    b, h, w, dim = x.shape
    patches = np.zeros((b, h // ratio, w // ratio, dim))
    for row, column in np.ndindex(h // ratio, w // ratio):
        patch = x[:, row * ratio : (row + 1) * ratio, column * ratio : (column + 1) * ratio]
        patches[:, row, column] = np.einsum("bhwc,ochw->bo", patch, weights["sr.weight"]) + weights["sr.bias"]
    small = patches.reshape(b, -1, dim)
    small = (small - small.mean(-1, keepdims=True)) / np.sqrt(small.var(-1, keepdims=True) + 1e-5)
    small = small * weights["norm.weight"] + weights["norm.bias"]
    query = x.reshape(b, h * w, dim) @ weights["q.weight"].T + weights["q.bias"]
    keys, values = np.split(small @ weights["kv.weight"].T + weights["kv.bias"], 2, axis=-1)
    out = np.zeros_like(query)
    for head in np.split(np.arange(dim), heads):
        scores = query[..., head] @ keys[..., head].swapaxes(1, 2) / np.sqrt(dim // heads)
        out[..., head] = softmax(scores, axis=-1) @ values[..., head]
    return (out @ weights["proj.weight"].T + weights["proj.bias"]).reshape(x.shape)


def test_against_numpy():
    """Row 5 and column 7, which fill no patch, have queries but no keys."""
    with jax.enable_x64(True):
        block = SpatialReductionAttention(6, 3, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        x = np.random.default_rng(0).standard_normal((2, 5, 7, 6))
        out, expected = block(jnp.asarray(x)), by_hand(flax_attn.to_torch(block), x, 3, 2)
    assert relative_error(np.asarray(out), expected) <= tolerance("output", "float64")


# Sizes of timm's.
@pytest.mark.parametrize(
    ("arguments", "count", "kernel"),
    [({"sr_ratio": 2}, 8416, (32, 32, 2, 2)), ({"linear_attn": True, "sr_ratio": 2}, 5344, (32, 32, 1, 1))],
)
def test_entries(arguments, count, kernel):
    entries = flax_attn.to_torch(SpatialReductionAttention(32, 4, **arguments, rngs=nnx.Rngs(0)))
    assert sum(array.size for array in entries.values()) == count
    assert entries["sr.weight"].shape == kernel
    assert {name.split(".")[0] for name in entries} == {"q", "kv", "proj", "sr", "norm"}


def test_without_reduction_there_is_no_convolution():
    entries = flax_attn.to_torch(SpatialReductionAttention(8, 2, rngs=nnx.Rngs(0)))
    assert {name.split(".")[0] for name in entries} == {"q", "kv", "proj"}


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (16, 8)])
def test_linear_attends_to_49_places_of_any_map(size):
    block = SpatialReductionAttention(4, 2, linear_attn=True, rngs=nnx.Rngs(0))
    (weights,) = jax.eval_shape(lambda: flax_attn.attention_maps(block, jnp.ones((1, *size, 4)))).values()
    assert weights.shape == (1, 2, size[0] * size[1], 49)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 4}, "num_heads must divide dim=6, got 4"),
        ({"num_heads": 3, "sr_ratio": 0}, "sr_ratio must be a whole number >= 1, got 0"),
        ({"num_heads": 3, "attn_drop": 2}, "attn_drop must lie in [0, 1], got 2"),
        ({"num_heads": 3, "proj_drop": -1}, "proj_drop must lie in [0, 1], got -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SpatialReductionAttention(6, **arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 5, 7, 5), "x must have shape (b, h, w, dim=6), got (2, 5, 7, 5)"),
        ((2, 2, 7, 6), "x must have h and w >= 3, sr_ratio, got (2, 2, 7, 6)"),
        ((3, 7, 2, 6), "x must have h and w >= 3, sr_ratio, got (3, 7, 2, 6)"),
    ],
)
def test_bad_maps(shape, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SpatialReductionAttention(6, 3, 3, rngs=nnx.Rngs(0))(jnp.ones(shape))
