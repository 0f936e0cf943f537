import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks import spatial as fx
from flax_attn.testing import relative_error, tolerance


def double(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_against_numpy_one_place_at_a_time():
    x = double(2, 11, 3, 5)
    with jax.enable_x64(True):
        block = fx.SpatialAttentionModule(param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out = np.asarray(block(jnp.asarray(x)))
        before, now, after = np.asarray(block.att_fc.layers[0].kernel[...]).ravel()
        bias = np.asarray(block.att_fc.layers[0].bias[...])
    mean = np.pad(x.mean(-1), ((0, 0), (1, 1), (0, 0)))
    gate = np.zeros((2, 11, 3, 1))
    for b, time, sensor in np.ndindex(2, 11, 3):
        score = before * mean[b, time, sensor] + now * mean[b, time + 1, sensor] + after * mean[b, time + 2, sensor]
        gate[b, time, sensor] = expit(score + bias)
    assert relative_error(out, x * gate) <= tolerance("output", "float64")


def gate_of(x):
    return flax_attn.attention_maps(fx.SpatialAttentionModule(rngs=nnx.Rngs(0)), jnp.asarray(x))["gate"]


def test_the_gate_sees_three_steps_of_one_sensor_and_no_other():
    x = double(2, 11, 3, 5)
    changed = x.copy()
    changed[0, 4, 1] += 1
    places = np.argwhere(np.asarray(gate_of(x) != gate_of(changed)))
    np.testing.assert_array_equal(places, [[0, 3, 1, 0], [0, 4, 1, 0], [0, 5, 1, 0]])


def test_the_gate_sees_the_mean_over_channels():
    x = double(2, 11, 3, 4)
    np.testing.assert_array_equal(gate_of(np.round(8 * x) / 8), gate_of(np.round(8 * x[..., ::-1]) / 8))
    ones = np.ones((1, 1, 1, 2))
    np.testing.assert_array_equal(gate_of(ones), gate_of(ones * np.array([-3.0, 5.0])))


def test_the_bias_moves_the_gate_of_an_empty_window():
    block = fx.SpatialAttentionModule(rngs=nnx.Rngs(0))
    block.att_fc.layers[0].bias[...] = jnp.full(1, np.log(3))
    gate = flax_attn.attention_maps(block, jnp.zeros((2, 7, 3, 5)))["gate"]
    assert relative_error(np.asarray(gate), np.full((2, 7, 3, 1), 0.75)) <= tolerance("map", "float32")


@pytest.mark.parametrize("shape", [(11, 3, 5), (2, 11, 3), (2, 11, 3, 5, 1)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, series, modal, c), got {shape}")):
        fx.SpatialAttentionModule(rngs=nnx.Rngs(0))(jnp.ones(shape))
