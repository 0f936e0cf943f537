import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.local import EfficientLocalAttention
from flax_attn.testing import relative_error, tolerance


def gate(means, kernel, bias, scale, shift):
    """The gate of (b, n, c), each channel convolved along n and all normalised together."""
    n, reach = means.shape[1], kernel.shape[1] // 2
    padded = np.pad(means, ((0, 0), (reach, reach), (0, 0)))
    out = sum(padded[:, i : i + n] * kernel[:, i] for i in range(kernel.shape[1])) + bias
    normed = (out - out.mean((1, 2), keepdims=True)) / np.sqrt(out.var((1, 2), keepdims=True) + 1e-5)
    score = normed * scale + shift
    return expit(score * expit(score))


@pytest.mark.parametrize("options", [{}, {"kernel_size": 3, "bias": True, "has_skip": True}])
def test_against_numpy(options):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 11, 3))
    with jax.enable_x64(True):
        block = EfficientLocalAttention(3, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        entries = {name: rng.standard_normal(array.shape) for name, array in flax_attn.to_torch(block).items()}
        flax_attn.from_torch(block, entries)
        out = np.asarray(block(jnp.asarray(x)))
    gates = [
        gate(
            x.mean(axis),
            entries[f"conv_{name}.weight"].reshape(3, -1),
            entries.get(f"conv_{name}.bias", 0),
            entries[f"norm_{name}.weight"],
            entries[f"norm_{name}.bias"],
        )
        for name, axis in (("h", 2), ("w", 1))
    ]
    expected = x * gates[0][:, :, None] * gates[1][:, None] + (x if options else 0)
    assert relative_error(out, expected) <= tolerance("output", "float64")


@pytest.mark.parametrize(("channels", "count"), [(32, 576), (64, 1152)])
def test_as_many_parameters_as_published(channels, count):
    block = EfficientLocalAttention(channels, rngs=nnx.Rngs(0))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(block, nnx.Param))) == count


def test_no_gate_closes():
    # SiLU before the sigmoid has a minimum of -0.28.
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 29, 31, 5)), jnp.float32)
    for gate in flax_attn.attention_maps(EfficientLocalAttention(5, rngs=nnx.Rngs(0)), x).values():
        assert 0.43 < gate.min() < 0.44


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels must be a whole number >= 1, got 0"),
        ((8, 0), "kernel_size must be a whole number >= 1, got 0"),
        ((8, 4), "kernel_size must be odd, got 4"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        EfficientLocalAttention(*arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 3, 5, 7)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=8), got {shape}")):
        EfficientLocalAttention(8, rngs=nnx.Rngs(0))(jnp.ones(shape))
