import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.strip import StripAttention
from flax_attn.testing import relative_error, tolerance


def convolved(means, kernel, bias):
    """Convolves each channel of (b, n, c) along n."""
    n, reach = means.shape[1], kernel.shape[1] // 2
    padded = np.pad(means, ((0, 0), (reach, reach), (0, 0)))
    return sum(padded[:, i : i + n] * kernel[:, i] for i in range(kernel.shape[1])) + bias


@pytest.mark.parametrize("options", [{}, {"kernel_size": 5, "bias": True, "has_skip": True}])
def test_against_numpy(options):
    x = np.random.default_rng(0).standard_normal((2, 5, 11, 3))
    with jax.enable_x64(True):
        block = StripAttention(3, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        entries = flax_attn.to_torch(block)
        out = np.asarray(block(jnp.asarray(x)))
    rows, columns = (
        convolved(x.mean(axis), entries[f"conv_{name}.weight"].reshape(3, -1), entries.get(f"conv_{name}.bias", 0))
        for name, axis in (("h", 2), ("w", 1))
    )
    expected = x * expit(rows[:, :, None] + columns[:, None]) + (x if options else 0)
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_without_convolutions_there_are_no_parameters():
    x = np.random.default_rng(0).standard_normal((2, 5, 11, 3)).astype(np.float32)
    block = StripAttention(3, use_conv=False, rngs=nnx.Rngs(0))
    assert flax_attn.to_torch(block) == {}
    expected = x * expit(x.mean(2, keepdims=True) + x.mean(1, keepdims=True))
    assert relative_error(np.asarray(block(jnp.asarray(x))), expected) <= tolerance("output", "float32")


@pytest.mark.parametrize(("channels", "count"), [(32, 192), (64, 384)])
def test_as_many_parameters_as_published(channels, count):
    block = StripAttention(channels, rngs=nnx.Rngs(0))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(block, nnx.Param))) == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels must be a whole number >= 1, got 0"),
        ((8, True, 0), "kernel_size must be a whole number >= 1, got 0"),
        ((8, True, 4), "kernel_size must be odd, got 4"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        StripAttention(*arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 3, 5, 7)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=8), got {shape}")):
        StripAttention(8, rngs=nnx.Rngs(0))(jnp.ones(shape))
