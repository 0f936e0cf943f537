import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit, softmax

import flax_attn
from flax_attn.blocks.global_context import GlobalContext
from flax_attn.testing import relative_error, tolerance

X = np.random.default_rng(0).standard_normal((2, 5, 7, 16))


def numpy_mlp(layers, context, eps):
    hidden = context @ np.asarray(layers["fc1"].kernel[...])[0, 0] + np.asarray(layers["fc1"].bias[...])
    hidden = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(hidden.var(-1, keepdims=True) + eps)
    hidden = np.maximum(hidden * np.asarray(layers["norm"].scale[...]) + np.asarray(layers["norm"].bias[...]), 0)
    return hidden @ np.asarray(layers["fc2"].kernel[...])[0, 0] + np.asarray(layers["fc2"].bias[...])


@pytest.mark.parametrize(
    ("arguments", "eps"),
    [
        ({}, 1e-6),
        ({"fuse_add": True, "eps": 0.1}, 0.1),
        ({"fuse_add": True, "fuse_scale": False, "use_attn": False}, 1e-6),
    ],
)
def test_against_numpy(arguments, eps):
    with jax.enable_x64(True):
        block = GlobalContext(16, **arguments, rd_channels=5, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        if block.mlp_add is not None:
            kernel = block.mlp_add["fc2"].kernel
            kernel[...] = np.random.default_rng(1).standard_normal(kernel.shape)
        out = np.asarray(block(jnp.asarray(X)))
    pixels, weights = X.reshape(2, 35, 16), np.full((2, 35), 1 / 35)
    if block.conv_attn is not None:
        weights = softmax(pixels @ np.asarray(block.conv_attn.kernel[...])[0, 0, :, 0], axis=1)
    context = np.einsum("bn,bnc->bc", weights, pixels)[:, None, None]
    expected = X
    if block.mlp_scale is not None:
        expected = expected * expit(numpy_mlp(block.mlp_scale, context, eps))
    if block.mlp_add is not None:
        expected = expected + numpy_mlp(block.mlp_add, context, eps)
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_what_it_records():
    maps = flax_attn.attention_maps(GlobalContext(16, rngs=nnx.Rngs(0)), jnp.asarray(X, jnp.float32))
    assert {name: array.shape for name, array in maps.items()} == {"weights": (2, 1, 1, 35), "gate": (2, 1, 1, 16)}
    np.testing.assert_allclose(maps["weights"].sum(-1), 1, tolerance("output", "float32"))


def test_entries_are_those_of_timm():
    entries = flax_attn.to_torch(GlobalContext(32, rngs=nnx.Rngs(0)))
    assert {name: array.shape for name, array in entries.items()} == {
        "conv_attn.weight": (1, 32, 1, 1),
        "conv_attn.bias": (1,),
        "mlp_scale.fc1.weight": (4, 32, 1, 1),
        "mlp_scale.fc1.bias": (4,),
        "mlp_scale.norm.weight": (4,),
        "mlp_scale.norm.bias": (4,),
        "mlp_scale.fc2.weight": (32, 4, 1, 1),
        "mlp_scale.fc2.bias": (32,),
    }
    assert sum(array.size for array in entries.values()) == 333


def test_the_added_mlp_starts_at_its_bias():
    block = GlobalContext(16, fuse_add=True, fuse_scale=False, rngs=nnx.Rngs(0))
    x = jnp.asarray(X, jnp.float32)
    assert (block.mlp_add["fc2"].bias[...] != 0).all()
    np.testing.assert_array_equal(block(x), x + block.mlp_add["fc2"].bias[...])


def test_the_weights_of_the_attention_start_wider_than_those_of_a_convolution():
    kernel = GlobalContext(4096, rd_channels=1, rngs=nnx.Rngs(0)).conv_attn.kernel[...]
    spread = np.std(np.asarray(kernel)) * np.sqrt(4096 / 2)
    assert 0.95 < spread < 1.05  # N(0, 2 / channels)


def test_bad_arguments():
    with pytest.raises(ValueError, match="fuse_add or fuse_scale must be True, got False for both"):
        GlobalContext(16, fuse_scale=False, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape("rd_ratio must be a finite number above 0, got -1")):
        GlobalContext(16, rd_ratio=-1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=16), got (2, 3, 5, 7)")):
        GlobalContext(16, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 5, 7)))
