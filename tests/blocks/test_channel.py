import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks import channel as fx
from flax_attn.testing import relative_error, tolerance


def double(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_the_gate_and_the_gated_map_against_numpy():
    x = double(3, 5, 7, 17)
    with jax.enable_x64(True):
        block = fx.UseAttentionModel(17, 4, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        gate, out = np.asarray(block.channel_attention(jnp.asarray(x))), np.asarray(block(jnp.asarray(x)))
        w1, w2 = (np.asarray(fc.kernel[...])[0, 0] for fc in (block.channel_attention.fc1, block.channel_attention.fc2))
    assert w1.shape == (17, 4)  # 17 // 4 hidden channels
    expected = expit(sum(np.maximum(pooled @ w1, 0) @ w2 for pooled in (x.mean((1, 2)), x.max((1, 2)))))
    assert relative_error(gate, expected[:, None, None]) <= tolerance("map", "float64")
    assert relative_error(out, x * expected[:, None, None]) <= tolerance("output", "float64")


def test_by_hand():
    # One channel: average 2 and maximum 3 make sigmoid(relu(2 log 2 / 5) + relu(3 log 2 / 5)) = sigmoid(log 2) = 2/3.
    with jax.enable_x64(True):
        block = fx.ChannelAttention(1, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        block.fc1.kernel[...], block.fc2.kernel[...] = np.full((1, 1, 1, 1), 0.2), np.full((1, 1, 1, 1), np.log(2))
        gate = np.asarray(block(jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1)))
    assert relative_error(gate, np.full((1, 1, 1, 1), 2 / 3)) <= tolerance("map", "float64")


def test_without_biases_a_black_map_has_gate_one_half():
    gate = fx.ChannelAttention(17, 4, rngs=nnx.Rngs(0))(jnp.zeros((3, 5, 7, 17)))
    np.testing.assert_array_equal(gate, np.full((3, 1, 1, 17), 0.5))


def test_the_map_on_request_is_the_gate():
    x = jnp.asarray(double(3, 5, 7, 17))
    block = fx.UseAttentionModel(17, 4, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(
        flax_attn.attention_maps(block, x)["channel_attention.gate"], block.channel_attention(x)
    )


def test_shapes_of_the_tutorials_example():
    # Its (30, 40, 50, 30) arrays, called N,H,W,C there, have 40 channels in PyTorch: channels last, (30, 50, 30, 40).
    def call(x):
        block = fx.UseAttentionModel(40, rngs=nnx.Rngs(0))
        return block.channel_attention(x), block(x)

    gate, out = jax.eval_shape(call, jnp.ones((30, 50, 30, 40)))
    assert (gate.shape, out.shape) == ((30, 1, 1, 40), (30, 50, 30, 40))


every_class = pytest.mark.parametrize("block", [fx.ChannelAttention, fx.UseAttentionModel])


@every_class
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "in_planes must be a whole number >= 1, got 0"),
        ((17, 0), "ratio must be a whole number >= 1, got 0"),
        ((17, 2.0), "ratio must be a whole number >= 1, got 2.0"),
        ((13,), "ratio must be at most 13, the number of channels, to leave a hidden unit, got 16"),
        ((17, 18), "ratio must be at most 17, the number of channels, to leave a hidden unit, got 18"),
    ],
)
def test_bad_arguments(block, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        block(*arguments, rngs=nnx.Rngs(0))


@every_class
@pytest.mark.parametrize("shape", [(5, 7, 17), (2, 3, 5, 7, 17), (2, 5, 7, 13), (2, 17, 5, 7)])
def test_bad_shapes(block, shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=17), got {shape}")):
        block(17, 4, rngs=nnx.Rngs(0))(jnp.ones(shape))
