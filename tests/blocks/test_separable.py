import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn.blocks.separable import SeparableSelfAttention
from flax_attn.testing import relative_error, tolerance
from torch_ref.originals.original import declare_operators


@pytest.mark.parametrize("relu", [True, False])
def test_against_numpy(relu):
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7))
    with jax.enable_x64(True):
        block = SeparableSelfAttention(7, relu=relu, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out = np.asarray(block(jnp.asarray(x)))
        gate = np.asarray(flax_attn.attention_maps(block, jnp.asarray(x))["spatial_gate"])
        entries = flax_attn.to_torch(block)
    projected = x @ entries["qkv_proj.weight"][:, :, 0, 0].T + entries["qkv_proj.bias"]
    score, key, value = projected[..., 0], projected[..., 1:8], projected[..., 8:]
    expected = np.zeros_like(x)
    for image in range(2):
        for pixel in range(3):
            weights = softmax(score[image, pixel])
            np.testing.assert_allclose(gate[image, pixel, :, 0], weights, rtol=tolerance("map", "float64"))
            values = np.maximum(value[image, pixel], 0) if relu else value[image, pixel]
            expected[image, pixel] = values * (weights @ key[image, pixel])
    expected = expected @ entries["out_proj.weight"][:, :, 0, 0].T + entries["out_proj.bias"]
    assert relative_error(out, expected) <= tolerance("output", "float64")


@pytest.mark.parametrize(("channels", "parameters"), [(32, 3201), (64, 12545)])
def test_entries_are_timms(channels, parameters):
    entries = flax_attn.to_torch(SeparableSelfAttention(channels, rngs=nnx.Rngs(0)))
    assert {name: array.shape for name, array in entries.items()} == {
        "qkv_proj.weight": (2 * channels + 1, channels, 1, 1),
        "qkv_proj.bias": (2 * channels + 1,),
        "out_proj.weight": (channels, channels, 1, 1),
        "out_proj.bias": (channels,),
    }
    assert sum(array.size for array in entries.values()) == parameters
    assert all(
        "bias" not in name for name in flax_attn.to_torch(SeparableSelfAttention(3, bias=False, rngs=nnx.Rngs(0)))
    )


def test_cross_attention_of_the_original_fails():
    # So there is none here; where a later version mends it, ours may follow.
    declare_operators()
    original = importlib.import_module("timm.models.mobilevit").LinearSelfAttention(8)
    with pytest.raises(RuntimeError):
        original(torch.ones(2, 8, 4, 5), torch.ones(2, 8, 4, 5))


def test_dropout_acts_on_the_weights_and_on_the_output():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 5, 7)), jnp.float32)
    weights = flax_attn.attention_maps(SeparableSelfAttention(7, attn_drop=0.5, rngs=nnx.Rngs(0)), x)["spatial_gate"]
    assert (weights == 0).any()
    assert (SeparableSelfAttention(7, proj_drop=0.5, rngs=nnx.Rngs(0))(x) == 0).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dim": 0}, "embed_dim must be a whole number >= 1, got 0"),
        ({"embed_dim": 3, "attn_drop": 2}, "attn_drop must lie in [0, 1], got 2"),
        ({"embed_dim": 3, "proj_drop": 2}, "proj_drop must lie in [0, 1], got 2"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SeparableSelfAttention(**arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 3, 5, 8)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, p, n, embed_dim=7), got {shape}")):
        SeparableSelfAttention(7, rngs=nnx.Rngs(0))(jnp.ones(shape))
