import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks import pointwise as fx
from flax_attn.testing import relative_error, tolerance

OUTPUT, BUFFER = tolerance("output", "float64"), tolerance("buffer", "float64")


def double(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_with_norm_against_numpy():
    x = double(3, 7, 11, 5)
    with jax.enable_x64(True):
        block = fx.PointwiseSpatialAttention(5, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        scale, bias = 1 + 0.3 * double(5, seed=1), double(5, seed=2)
        block.bn.scale[...], block.bn.bias[...] = scale, bias
        out = np.asarray(block(jnp.asarray(x)))
        z = x @ np.asarray(block.conv.kernel[...])[0, 0]
        mean = np.asarray(block.bn.mean[...])
    normal = (z - z.mean((0, 1, 2))) / np.sqrt(z.var((0, 1, 2)) + 1e-5)
    assert relative_error(out, x * expit(normal * scale + bias)) <= OUTPUT
    # The momentum is PyTorch's default here, unlike CBAM's 0.01.
    assert relative_error(mean, 0.1 * z.mean((0, 1, 2))) <= BUFFER


def test_without_norm_by_hand():
    with jax.enable_x64(True):
        block = fx.PointwiseSpatialAttention(2, bn=False, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        block.conv.kernel[...] = np.array([[0.0, np.log(2)], [np.log(3), 0.0]]).reshape(1, 1, 2, 2)
        block.conv.bias[...] = np.array([0.0, np.log(2)])
        out = np.asarray(block(jnp.array([1.0, 2.0]).reshape(1, 1, 1, 2)))
    # Scores 2 log 3 and log 2 + log 2: gates 9/10 and 4/5.
    assert relative_error(out.ravel(), np.array([0.9, 1.6])) <= OUTPUT


def test_the_convolution_has_a_bias_only_without_the_norm():
    assert fx.PointwiseSpatialAttention(5, rngs=nnx.Rngs(0)).conv.bias is None
    without = fx.PointwiseSpatialAttention(5, bn=False, rngs=nnx.Rngs(0))
    assert without.conv.bias is not None
    assert without.bn is None


def test_the_gate_is_one_per_pixel_and_channel_and_sees_one_pixel():
    block = fx.PointwiseSpatialAttention(5, bn=False, rngs=nnx.Rngs(0))
    x = double(3, 7, 11, 5)
    changed = x.copy()
    changed[1, 2, 3, 4] += 1
    gates = [np.asarray(flax_attn.attention_maps(block, jnp.asarray(y))["gate"]) for y in (x, changed)]
    assert gates[0].shape == (3, 7, 11, 5)
    places = np.argwhere(gates[0] != gates[1])
    np.testing.assert_array_equal(places, [[1, 2, 3, channel] for channel in range(5)])


@pytest.mark.parametrize("channels", [0, -5, 2.5])
def test_bad_channels(channels):
    with pytest.raises(ValueError, match=f"channels must be a whole number >= 1, got {channels}"):
        fx.PointwiseSpatialAttention(channels, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(7, 11, 5), (2, 7, 11, 4), (2, 5, 7, 11)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=5), got {shape}")):
        fx.PointwiseSpatialAttention(5, rngs=nnx.Rngs(0))(jnp.ones(shape))
