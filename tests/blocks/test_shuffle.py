import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.shuffle import ShuffleAttention
from flax_attn.testing import relative_error, tolerance


def by_hand(x, entries, groups):
    """The definition, channel by channel: the gate and the shuffled product."""
    c = x.shape[-1]
    half = c // (2 * groups)
    gate = np.empty_like(x)
    for channel in range(c):
        one, place = x[..., channel], channel % half
        if channel // half % 2 == 0:
            score = entries["cweight"][place] * one.mean((1, 2), keepdims=True) + entries["cbias"][place]
        else:
            normed = (one - one.mean((1, 2), keepdims=True)) / np.sqrt(one.var((1, 2), keepdims=True) + 1e-5)
            normed = normed * entries["gn.weight"][place] + entries["gn.bias"][place]
            score = entries["sweight"][place] * normed + entries["sbias"][place]
        gate[..., channel] = expit(score)
    out = np.empty_like(x)
    for channel in range(c):  # the first half of the channels goes to even places, the second to odd ones
        out[..., channel % (c // 2) * 2 + channel // (c // 2)] = x[..., channel] * gate[..., channel]
    return gate, out


def test_against_numpy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 7, 18))
    with jax.enable_x64(True):
        block = ShuffleAttention(18, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        entries = {name: rng.standard_normal(array.shape) for name, array in flax_attn.to_torch(block).items()}
        flax_attn.from_torch(block, entries)
        out = np.asarray(block(jnp.asarray(x)))
        recorded = np.asarray(flax_attn.attention_maps(block, jnp.asarray(x))["gate"])
    gate, expected = by_hand(x, {name: array.ravel() for name, array in entries.items()}, 3)
    assert relative_error(out, expected) <= tolerance("output", "float64")
    assert relative_error(recorded, gate) <= tolerance("map", "float64")


def test_entries_are_pytorchs():
    entries = flax_attn.to_torch(ShuffleAttention(32, 4, rngs=nnx.Rngs(0)))
    raw = ("cweight", "cbias", "sweight", "sbias")
    assert {name: array.shape for name, array in entries.items()} == {
        **dict.fromkeys(raw, (1, 4, 1, 1)),
        "gn.weight": (4,),
        "gn.bias": (4,),
    }
    assert [float(entries[name].mean()) for name in raw] == [0, 1, 0, 1]


def test_at_first_it_scales_by_one_number():
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 16)).astype(np.float32)
    out = np.asarray(ShuffleAttention(16, 4, rngs=nnx.Rngs(0))(jnp.asarray(x)))
    shuffled = x.reshape(2, 5, 7, 2, 8).swapaxes(3, 4).reshape(x.shape)
    assert relative_error(out, shuffled * expit(1)) <= tolerance("output", "float32")


def test_a_map_of_one_place_has_a_gradient():
    block = ShuffleAttention(4, 2, rngs=nnx.Rngs(0))
    gradient = jax.grad(lambda x: block(x).sum())(jnp.full((2, 1, 1, 4), 3.0))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels must be a whole number >= 1, got 0"),
        ((8, 0), "groups must be a whole number >= 1, got 0"),
        ((8,), "2 * groups must divide channels=8, got groups=8"),
        ((12, 4), "2 * groups must divide channels=12, got groups=4"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ShuffleAttention(*arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 3, 5, 7)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=8), got {shape}")):
        ShuffleAttention(8, 2, rngs=nnx.Rngs(0))(jnp.ones(shape))
