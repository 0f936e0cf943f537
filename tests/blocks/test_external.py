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
from flax_attn.blocks.external import ExternalAttention, MultiHeadExternalAttention
from flax_attn.testing import relative_error, tolerance

OUTPUT, MAP = tolerance("output", "float64"), tolerance("map", "float64")
TOKENS = np.random.default_rng(0).standard_normal((2, 7, 12))


def called(cls, **arguments):
    """Output, what is recorded, and entries of a block in float64."""
    with jax.enable_x64(True):
        block = cls(**arguments, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        if cls is ExternalAttention:  # its initial memories are so small that all tokens look alike
            block.mk.kernel[...] = 1000 * block.mk.kernel[...]
        out = np.asarray(block(jnp.asarray(TOKENS)))
        weights = np.asarray(flax_attn.attention_maps(block, jnp.asarray(TOKENS))["weights"])
        return out, weights, flax_attn.to_torch(block)


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_against_numpy(eps):
    out, weights, entries = called(ExternalAttention, d_model=12, memories=5, eps=eps)
    for image in range(2):
        spread = softmax(TOKENS[image] @ entries["mk.weight"].T, axis=0)
        assert relative_error(weights[image, 0], spread.T) <= MAP
        twice = np.stack([row / (row.sum() + eps) for row in spread])
        assert relative_error(out[image], twice @ entries["mv.weight"].T) <= OUTPUT


@pytest.mark.oracle("MultiHeadExternalAttention")
def test_heads_against_numpy():
    out, weights, entries = called(MultiHeadExternalAttention, dim=12, num_heads=3)
    wide = TOKENS @ entries["trans_dims.weight"].T + entries["trans_dims.bias"]
    heads = []
    for head in range(12):
        x = wide[..., 4 * head : 4 * head + 4]
        spread = softmax(x @ entries["linear_0.weight"].T + entries["linear_0.bias"], axis=1)
        assert relative_error(weights[:, head], spread.swapaxes(1, 2)) <= MAP
        twice = spread / (spread.sum(-1, keepdims=True) + 1e-9)
        heads.append(twice @ entries["linear_1.weight"].T + entries["linear_1.bias"])
    expected = np.concatenate(heads, -1) @ entries["proj.weight"].T + entries["proj.bias"]
    assert relative_error(out, expected) <= OUTPUT


@pytest.mark.parametrize(
    ("cls", "arguments", "parameters"),
    [
        (ExternalAttention, {"d_model": 32, "memories": 8}, 512),
        (ExternalAttention, {"d_model": 64}, 8192),
        (MultiHeadExternalAttention, {"dim": 32, "num_heads": 4}, 9448),
        (MultiHeadExternalAttention, {"dim": 64}, 34184),
    ],
)
def test_number_of_parameters(cls, arguments, parameters):
    entries = flax_attn.to_torch(cls(**arguments, rngs=nnx.Rngs(0)))
    assert sum(array.size for array in entries.values()) == parameters


def test_a_token_that_all_memories_pass_over_stays_finite():
    # Its share is exp(-200), which is 0 in float32; the original divides 0 by 0.
    block = ExternalAttention(1, memories=2, rngs=nnx.Rngs(0))
    block.mk.kernel[...] = jnp.array([[1.0, 2.0]])
    block.mv.kernel[...] = jnp.array([[3.0], [7.0]])
    tokens = jnp.array([[[0.0], [-200.0]]])
    original = importlib.import_module("fightingcv_attention.attention.ExternalAttention").ExternalAttention(1, 2)
    original.load_state_dict({name: torch.from_numpy(x) for name, x in flax_attn.to_torch(block).items()})
    assert original(torch.from_numpy(np.array(tokens)))[0, 1].isnan()
    np.testing.assert_allclose(block(tokens)[0, :, 0], [5, 3], rtol=tolerance("output", "float32"))


def test_the_memories_start_small():
    block = ExternalAttention(100, 50, rngs=nnx.Rngs(0))
    for layer in (block.mk, block.mv):
        assert 0.95 < np.std(layer.kernel[...]) / 0.001 < 1.05


def test_dropout_acts_on_the_weights_and_on_the_output():
    x = jnp.asarray(TOKENS, jnp.float32)
    block = MultiHeadExternalAttention(12, 3, attn_drop=0.5, rngs=nnx.Rngs(0))
    assert not np.array_equal(block(x), block(x))
    assert (MultiHeadExternalAttention(12, 3, proj_drop=0.5, rngs=nnx.Rngs(0))(x) == 0).any()


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (ExternalAttention, {"d_model": 0}, "d_model must be a whole number >= 1, got 0"),
        (ExternalAttention, {"d_model": 4, "memories": 0}, "memories must be a whole number >= 1, got 0"),
        (MultiHeadExternalAttention, {"dim": 12, "num_heads": 5}, "num_heads must divide dim=12, got 5"),
        (MultiHeadExternalAttention, {"dim": 12, "num_heads": 0}, "num_heads must be a whole number >= 1, got 0"),
        (MultiHeadExternalAttention, {"dim": 16, "attn_drop": 2}, "attn_drop must lie in [0, 1], got 2"),
        (MultiHeadExternalAttention, {"dim": 16, "proj_drop": 2}, "proj_drop must lie in [0, 1], got 2"),
    ],
)
def test_bad_arguments(cls, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        cls(**arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(7, 12), (2, 7, 13)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"tokens must have shape (b, n, d_model=12), got {shape}")):
        ExternalAttention(12, rngs=nnx.Rngs(0))(jnp.ones(shape))
    with pytest.raises(ValueError, match=re.escape(f"tokens must have shape (b, n, dim=12), got {shape}")):
        MultiHeadExternalAttention(12, 3, rngs=nnx.Rngs(0))(jnp.ones(shape))
