import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.eca import EfficientChannelAttention
from flax_attn.testing import relative_error, tolerance
from torch_ref.originals import Original


def by_hand(x, kernel, *, circular):
    """The definition, channel by channel."""
    mean, reach, c = x.mean((1, 2)), len(kernel) // 2, x.shape[-1]
    gate = np.zeros_like(mean)
    for channel in range(c):
        for place, weight in enumerate(kernel):
            neighbour = channel + place - reach
            if circular or 0 <= neighbour < c:
                gate[:, channel] += weight * mean[:, neighbour % c]
    return x * expit(gate)[:, None, None]


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_against_numpy(kernel_size, circular):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).standard_normal((2, 3, 5, 11))
        block = EfficientChannelAttention(
            kernel_size=kernel_size, circular=circular, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        out, kernel = np.asarray(block(jnp.asarray(x))), np.asarray(block.conv.kernel[...])[:, 0, 0]
    assert relative_error(out, by_hand(x, kernel, circular=circular)) <= tolerance("output", "float64")


# The widths of the published formula, and those that are one off where it is truncated otherwise.
WIDTHS = {1: 3, 8: 3, 32: 3, 64: 3, 96: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 2048: 7, 4096: 7}


@pytest.mark.parametrize("channels", WIDTHS)
def test_the_width_follows_from_the_channels(channels):
    block = EfficientChannelAttention(channels, rngs=nnx.Rngs(0))
    assert block.conv.kernel.shape == (WIDTHS[channels], 1, 1)
    assert block.conv.bias is None


def test_a_width_that_the_channels_set_is_not_given():
    with pytest.raises(ValueError, match="kernel_size must be None unless channels is, which sets it, got 5"):
        flax_attn.create_block("eca", 64, kernel_size=5, rngs=nnx.Rngs(0))


def test_fightingcvs_has_a_bias():
    theirs = Original("", {}, "fightingcv_attention.attention.ECAAttention.py:ECAAttention").load()
    assert {name: tuple(entry.shape) for name, entry in theirs.state_dict().items()} == {
        "conv.weight": (1, 1, 3),
        "conv.bias": (1,),
    }
    with pytest.raises(ValueError, match=r"conv\.bias"):
        flax_attn.from_torch(EfficientChannelAttention(rngs=nnx.Rngs(0)), theirs.state_dict())


def test_gamma_and_beta_change_the_width():
    assert EfficientChannelAttention(256, gamma=1, rngs=nnx.Rngs(0)).conv.kernel.shape == (9, 1, 1)
    assert EfficientChannelAttention(256, beta=7, rngs=nnx.Rngs(0)).conv.kernel.shape == (7, 1, 1)


def test_without_channels_it_takes_any_map():
    block = EfficientChannelAttention(rngs=nnx.Rngs(0))
    assert [block(jnp.ones((1, 2, 3, c))).shape[-1] for c in (5, 7)] == [5, 7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "channels must be a whole number >= 1, got 0"),
        ({"channels": 8, "gamma": 0}, "gamma must be a whole number >= 1, got 0"),
        ({"kernel_size": 0}, "kernel_size must be a whole number >= 1, got 0"),
        ({"kernel_size": 4}, "kernel_size must be odd, got 4"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        EfficientChannelAttention(**arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 7)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=8), got {shape}")):
        EfficientChannelAttention(8, rngs=nnx.Rngs(0))(jnp.ones(shape))
