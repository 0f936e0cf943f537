import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.bilinear import BatNonLocal
from flax_attn.testing import relative_error, tolerance

CLOSE = tolerance("input gradient", "float32")


def conv_norm_relu(layer, x):
    """In eval mode."""
    y = x @ np.asarray(layer.conv.kernel[...])[0, 0]
    mean, var, scale, bias = (
        np.asarray(one[...]) for one in (layer.bn.mean, layer.bn.var, layer.bn.scale, layer.bn.bias)
    )
    return np.maximum((y - mean) / np.sqrt(var + 1e-5) * scale + bias, 0)


def mixed(ba, x, s, groups):
    """Place by place, from the definition."""
    b, height, width, c = x.shape
    tall, wide = height // s, width // s
    pooled = conv_norm_relu(ba.conv1, x)
    rows = np.stack([pooled[:, i * tall : (i + 1) * tall].max((1, 2)) for i in range(s)], axis=1)
    columns = np.stack([pooled[:, :, j * wide : (j + 1) * wide].max((1, 2)) for j in range(s)], axis=1)
    p_kernel, q_kernel = np.asarray(ba.conv_p.kernel[...])[:, 0], np.asarray(ba.conv_q.kernel[...])[0]
    p = expit(np.einsum("big,igo->bo", rows, p_kernel) + np.asarray(ba.conv_p.bias[...])).reshape(b, groups, s, s)
    q = expit(np.einsum("big,igo->bo", columns, q_kernel) + np.asarray(ba.conv_q.bias[...])).reshape(b, groups, s, s)
    p, q = p / p.sum(3, keepdims=True), q / q.sum(2, keepdims=True)
    out = np.zeros_like(x)
    for image, y, z, channel in np.ndindex(*x.shape):
        group, i, k = channel // (c // groups), y // tall, z // wide
        out[image, y, z, channel] = sum(
            p[image, group, i, j] * x[image, j * tall + y % tall, m * wide + z % wide, channel] * q[image, group, m, k]
            for j in range(s)
            for m in range(s)
        )
    return conv_norm_relu(ba.conv2, out)


def test_against_numpy():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        block = BatNonLocal(6, block_size=2, rd_channels=4, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        for layer in (block.conv1, block.ba.conv1, block.ba.conv2, block.conv2):
            for one in (layer.bn.mean, layer.bn.var, layer.bn.scale, layer.bn.bias):
                one[...] = rng.uniform(0.5, 1.5, one.shape)
        block.eval()
        x = rng.standard_normal((2, 4, 6, 6))
        out = np.asarray(block(jnp.asarray(x)))
        inside = mixed(block.ba, conv_norm_relu(block.conv1, x), 2, 2)
        expected = x + conv_norm_relu(block.conv2, inside)
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_it_drops_whole_channels():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6, 6, 32)), jnp.float32)
    added = np.asarray(BatNonLocal(32, block_size=3, drop_rate=0.5, rngs=nnx.Rngs(0))(x) - x)
    dropped = (added == 0).all((1, 2))
    assert 0.3 < dropped.mean() < 0.7
    assert BatNonLocal(32, rngs=nnx.Rngs(0)).dropout.rate == 0.2


def test_sigmoids_that_all_round_to_zero_make_no_nan():
    block = BatNonLocal(8, block_size=3, rngs=nnx.Rngs(0))
    block.ba.conv_p.bias[...] = jnp.full(18, -1e4)
    block.eval()
    assert jnp.isfinite(jax.grad(lambda x: block(x).sum())(jnp.ones((2, 6, 9, 8)))).all()


def test_weights_of_rows_and_columns_sum_to_one():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 9, 8)), jnp.float32)
    maps = flax_attn.attention_maps(BatNonLocal(8, block_size=3, rngs=nnx.Rngs(0)), x)
    assert {name: array.shape for name, array in maps.items()} == {
        "row_weights": (2, 2, 3, 3),
        "column_weights": (2, 2, 3, 3),
    }
    for weights in maps.values():
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=CLOSE)


@pytest.mark.parametrize(("channels", "size", "count"), [(32, 4, 1268), (64, 7, 5472)])
def test_names_and_numbers_of_parameters_are_timms(channels, size, count):
    state = flax_attn.to_torch(BatNonLocal(channels, block_size=size, rngs=nnx.Rngs(0)))
    assert sum(array.size for name, array in state.items() if "running" not in name and "num" not in name) == count
    assert state["ba.conv_p.weight"].shape == (2 * size * size, 2, size, 1)
    assert state["ba.conv_q.weight"].shape == (2 * size * size, 2, 1, size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number >= 1, got 0"),
        ({"block_size": 0}, "block_size must be a whole number >= 1, got 0"),
        ({"groups": 3}, "groups must divide the 8 channels inside, got 3"),
        ({"rd_channels": 0}, "rd_channels must be a whole number >= 1, got 0"),
        ({"drop_rate": 2}, "drop_rate must lie in [0, 1], got 2"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BatNonLocal(**{"in_channels": 8, **arguments}, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("size", [(8, 7), (7, 8), (3, 7)])
def test_bad_sizes(size):
    block = BatNonLocal(8, rngs=nnx.Rngs(0))
    message = f"x must have a height and a width that block_size=7 divides, got (2, {size[0]}, {size[1]}, 8)"
    with pytest.raises(ValueError, match=re.escape(message)):
        block(jnp.ones((2, *size, 8)))
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=8), got (2, 7, 7, 5)")):
        block(jnp.ones((2, 7, 7, 5)))
