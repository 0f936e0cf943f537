import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn.blocks.criss_cross import CrissCrossAttention
from flax_attn.testing import relative_error, tolerance

CLOSE = tolerance("input gradient", "float32")


def conv1x1(layer, x):
    return x @ np.asarray(layer.kernel[...])[0, 0] + np.asarray(layer.bias[...])


def crossed(query, key, value):
    """Place by place: a softmax over the places in the same row or column, each once."""
    out = np.zeros_like(value)
    b, height, width, _ = value.shape
    for image, i, j in np.ndindex(b, height, width):
        places = [(g, j) for g in range(height) if g != i] + [(i, v) for v in range(width)]
        weights = softmax([query[image, i, j] @ key[image, g, v] for g, v in places])
        out[image, i, j] = sum(weight * value[image, g, v] for weight, (g, v) in zip(weights, places, strict=True))
    return out


@pytest.mark.parametrize("size", [(3, 5), (4, 1), (1, 4), (1, 1)])
def test_against_numpy(size):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).standard_normal((2, *size, 16))
        block = CrissCrossAttention(16, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        block.gamma[...] = np.array([0.7])
        out = np.asarray(block(jnp.asarray(x)))
        projected = (conv1x1(layer, x) for layer in (block.query_conv, block.key_conv, block.value_conv))
    assert relative_error(out, x + 0.7 * crossed(*projected)) <= tolerance("output", "float64")


def test_a_place_counts_once_and_weights_sum_to_one():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 5, 8)), jnp.float32)
    weights = flax_attn.attention_maps(CrissCrossAttention(8, rngs=nnx.Rngs(0)), x)["weights"]
    assert weights.shape == (2, 1, 15, 8)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=CLOSE)
    by_place = weights.reshape(2, 3, 5, 8)
    for row in range(3):
        assert not by_place[:, row, :, row].any()
        assert (by_place[:, row, :, 3:] > 0).all()


def test_two_calls_reach_every_place():
    block = CrissCrossAttention(8, rngs=nnx.Rngs(0))
    block.gamma[...] = jnp.ones(1)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 5, 8)), jnp.float32)
    once, twice = (
        jax.grad(lambda x, call=call: call(x)[0, 0, 0].sum())(x) for call in (block, lambda x: block(block(x)))
    )
    assert not once[0, 1:, 1:].any()
    assert twice.any(-1).all()


def test_it_starts_as_the_identity():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 5, 8)), jnp.float32)
    np.testing.assert_array_equal(CrissCrossAttention(8, rngs=nnx.Rngs(0))(x), x)


def test_no_array_of_places_times_places():
    block = CrissCrossAttention(8, rngs=nnx.Rngs(0))
    program = jax.make_jaxpr(jax.grad(lambda x: block(x).sum()))(jnp.ones((1, 37, 41, 8)))
    largest = max(variable.aval.size for equation in program.jaxpr.eqns for variable in equation.outvars)
    assert largest == 37 * 41 * (37 + 41)


@pytest.mark.parametrize(("channels", "count"), [(32, 1321), (64, 5201)])
def test_names_and_numbers_of_parameters_are_the_authors(channels, count):
    state = flax_attn.to_torch(CrissCrossAttention(channels, rngs=nnx.Rngs(0)))
    assert sum(array.size for array in state.values()) == count
    assert {name.split(".")[0] for name in state} == {"query_conv", "key_conv", "value_conv", "gamma"}


def test_bad_arguments():
    with pytest.raises(ValueError, match="in_dim must be a whole number >= 8, got 7"):
        CrissCrossAttention(7, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=8), got (2, 3, 5, 7)")):
        CrissCrossAttention(8, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 5, 7)))
