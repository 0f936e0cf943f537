import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.signal import correlate2d
from scipy.special import erf

import flax_attn
from flax_attn import FocalModulation
from flax_attn.testing import relative_error, tolerance


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def by_hand(weights, x, levels, *, normalised):
    """One image (h, w, dim), level by level and channel by channel."""
    dim = x.shape[-1]

    def linear(x, name):
        return x @ weights[f"{name}.weight"][:, :, 0, 0].T + weights[f"{name}.bias"]

    query, context, gates = np.split(linear(x, "f"), (dim, 2 * dim), axis=-1)
    total = np.zeros_like(context)
    for level in range(levels):
        kernels = weights[f"focal_layers.{level}.0.weight"]
        context = np.stack([correlate2d(context[..., c], kernels[c, 0], "same") for c in range(dim)], axis=-1)
        context = gelu(context)
        total += context * gates[..., level, None]
    total += gelu(context.mean((0, 1))) * gates[..., levels, None]
    out = query * linear(total / (levels + 1 if normalised else 1), "h")
    if normalised:
        out = (out - out.mean(-1, keepdims=True)) / np.sqrt(out.var(-1, keepdims=True) + 1e-6)
        out = out * weights["norm.weight"] + weights["norm.bias"]
    return linear(out, "proj")


@pytest.mark.parametrize("normalised", [False, True])
def test_against_numpy(normalised):
    with jax.enable_x64(True):
        options = {"use_post_norm": normalised, "normalize_modulator": normalised, "param_dtype": jnp.float64}
        block = FocalModulation(5, 3, 2, **options, rngs=nnx.Rngs(0))
        x = np.random.default_rng(0).standard_normal((1, 7, 6, 5))
        out, expected = block(jnp.asarray(x)), by_hand(flax_attn.to_torch(block), x[0], 2, normalised=normalised)
    assert relative_error(np.asarray(out[0]), expected) <= tolerance("output", "float64")


def test_entries_are_timms():
    entries = flax_attn.to_torch(FocalModulation(32, 3, 2, use_post_norm=True, rngs=nnx.Rngs(0)))
    assert {name: array.shape for name, array in entries.items()} == {
        "f.weight": (67, 32, 1, 1),
        "f.bias": (67,),
        "h.weight": (32, 32, 1, 1),
        "h.bias": (32,),
        "proj.weight": (32, 32, 1, 1),
        "proj.bias": (32,),
        "focal_layers.0.0.weight": (32, 1, 3, 3),
        "focal_layers.1.0.weight": (32, 1, 5, 5),
        "norm.weight": (32,),
        "norm.bias": (32,),
    }
    assert sum(array.size for array in entries.values()) == 5411 + 64


def test_weights_of_linear_layers_load():
    """The authors' f and proj are linear layers."""
    block = FocalModulation(4, 3, 1, rngs=nnx.Rngs(0))
    weights = flax_attn.to_torch(block)
    flax_attn.from_torch(block, {**weights, "f.weight": weights["f.weight"][:, :, 0, 0]})
    np.testing.assert_array_equal(flax_attn.to_torch(block)["f.weight"], weights["f.weight"])


def test_gates_are_not_squashed():
    block = FocalModulation(4, 3, 1, rngs=nnx.Rngs(0))
    (gate,) = flax_attn.attention_maps(block, 100 * jnp.ones((1, 2, 3, 4))).values()
    assert gate.shape == (1, 2, 3, 4)
    assert float(jnp.abs(gate).max()) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3, 2), "dim must be a whole number >= 1, got 0"),
        ((4, 3, 0), "focal_level must be a whole number >= 1, got 0"),
        ((4, 2, 2), "focal_window and focal_factor must give kernels of odd size, got 2, 4"),
        ((4, 3, 2, 1), "focal_window and focal_factor must give kernels of odd size, got 3, 4"),
        ((4, 3, 2, -2), "focal_factor must be a whole number >= 0, got -2"),
        ((4, 3, 2, 2, True, False, False, 3), "proj_drop must lie in [0, 1], got 3"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        FocalModulation(*arguments, rngs=nnx.Rngs(0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, dim=4), got (2, 3, 4)")):
        FocalModulation(4, 3, 1, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 4)))
