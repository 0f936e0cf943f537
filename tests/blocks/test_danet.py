import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn.blocks.danet import DANetChannelAttention, DANetPositionAttention
from flax_attn.testing import relative_error, tolerance

CLOSE = tolerance("input gradient", "float32")

OUTPUT = tolerance("output", "float64")
BOTH = [DANetPositionAttention, DANetChannelAttention]


def double(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def conv1x1(layer, x):
    return x @ np.asarray(layer.kernel[...])[0, 0] + np.asarray(layer.bias[...])


def test_position_attention_against_numpy():
    with jax.enable_x64(True):
        x = double(2, 3, 5, 16)
        block = DANetPositionAttention(16, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        block.gamma[...] = np.array([0.7])
        out = np.asarray(block(jnp.asarray(x)))
        query, key, value = (
            conv1x1(layer, x).reshape(2, 15, -1) for layer in (block.query_conv, block.key_conv, block.value_conv)
        )
    weights = softmax(query @ key.swapaxes(1, 2), axis=-1)
    assert query.shape[-1] == 2
    assert relative_error(out, x + 0.7 * (weights @ value).reshape(x.shape)) <= OUTPUT


def test_channel_attention_against_numpy():
    with jax.enable_x64(True):
        x = double(2, 3, 5, 4)
        block = DANetChannelAttention(4, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        block.gamma[...] = np.array([0.7])
        out = np.asarray(block(jnp.asarray(x)))
    expected = x.copy()
    for b in range(2):
        for i in range(4):
            energies = np.array([np.sum(x[b, :, :, i] * x[b, :, :, j]) for j in range(4)])
            weights = softmax(energies.max() - energies)
            expected[b, :, :, i] += 0.7 * sum(weights[j] * x[b, :, :, j] for j in range(4))
    assert relative_error(out, expected) <= OUTPUT


def test_the_least_similar_channel_weighs_most():
    # Channels 0 and 1 are equal, 2 is their opposite: the code's sign, not the paper's.
    x = jnp.array([1.0, 1.0, -1.0]) * jnp.ones((1, 2, 2, 1))
    weights = flax_attn.attention_maps(DANetChannelAttention(3, rngs=nnx.Rngs(0)), x)["weights"]
    assert weights.shape == (1, 1, 3, 3)
    np.testing.assert_allclose(weights[0, 0, 0], softmax([-4, -4, 4]), rtol=CLOSE)


def test_large_energies_stay_finite_in_float32():
    x = 1e4 * jnp.asarray(double(1, 8, 8, 4), jnp.float32)
    block = DANetChannelAttention(4, rngs=nnx.Rngs(0))
    block.gamma[...] = jnp.ones(1)
    assert jnp.isfinite(block(x)).all()
    assert jnp.isfinite(jax.grad(lambda x: block(x).sum())(x)).all()


@pytest.mark.parametrize("block", BOTH)
def test_they_start_as_the_identity(block):
    x = jnp.asarray(double(2, 3, 5, 8), jnp.float32)
    np.testing.assert_array_equal(block(8, rngs=nnx.Rngs(0))(x), x)


@pytest.mark.parametrize("block", BOTH)
def test_a_single_place_attends_to_itself(block):
    maps = flax_attn.attention_maps(block(8, rngs=nnx.Rngs(0)), jnp.ones((2, 1, 1, 8)))
    np.testing.assert_allclose(maps["weights"].sum(-1), 1, rtol=CLOSE)


@pytest.mark.parametrize(("channels", "count"), [(32, 1321), (64, 5201)])
def test_names_and_numbers_of_parameters_are_the_authors(channels, count):
    state = flax_attn.to_torch(DANetPositionAttention(channels, rngs=nnx.Rngs(0)))
    assert sum(array.size for array in state.values()) == count
    assert {name.split(".")[0] for name in state} == {"query_conv", "key_conv", "value_conv", "gamma"}
    assert state["query_conv.weight"].shape == (channels // 8, channels, 1, 1)
    state = flax_attn.to_torch(DANetChannelAttention(channels, rngs=nnx.Rngs(0)))
    assert {name: array.shape for name, array in state.items()} == {"gamma": (1,)}


def test_another_port_has_fixed_sizes_and_no_residual():
    from fightingcv_attention.attention.DANet import DAModule as Port

    theirs = Port(d_model=8, H=5, W=5)
    assert theirs.position_attention_module.cnn.weight.shape == (512, 512, 3, 3)
    with pytest.raises(RuntimeError, match="512 channels"):
        theirs(torch.zeros(1, 8, 5, 5))
    with pytest.raises(RuntimeError, match="is invalid for input of size 12800"):
        theirs(torch.zeros(1, 512, 5, 5))
    x = torch.ones(1, 512, 7, 7)
    for parameter in theirs.parameters():
        torch.nn.init.zeros_(parameter)
    assert not theirs(x).any()  # where the authors' is the identity
    assert not [name for name in theirs.state_dict() if "gamma" in name]


def test_no_array_of_places_times_places_unless_it_is_recorded():
    block = DANetPositionAttention(8, rngs=nnx.Rngs(0))
    assert flax_attn.attention_maps(block, jnp.ones((2, 3, 5, 8)))["weights"].shape == (2, 1, 15, 15)
    assert "1009,1009" not in str(jax.make_jaxpr(lambda x: block(x))(jnp.ones((1, 1009, 1, 8))))


def test_bad_arguments():
    with pytest.raises(ValueError, match="in_dim must be a whole number >= 8, got 7"):
        DANetPositionAttention(7, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="in_dim must be a whole number >= 1, got 0"):
        DANetChannelAttention(0, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("block", BOTH)
def test_bad_shapes(block):
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=8), got (2, 3, 5, 7)")):
        block(8, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 5, 7)))
