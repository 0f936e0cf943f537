import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn.blocks.vit import SelfAttention
from flax_attn.testing import relative_error, tolerance

OUTPUT, MAP = tolerance("output", "float64"), tolerance("map", "float64")


def block(**options):
    return SelfAttention(**{"dim": 12, "num_heads": 3, **options}, param_dtype=jnp.float64, rngs=nnx.Rngs(0))


def by_hand(tokens, entries, *, hidden, added):
    """The definition, head by head: query, key and value are rows of one matrix, heads inside each."""
    d, rows = 4, entries["qkv.weight"].reshape(3, 3, 4, 12)
    heads, weights = [], []
    for head in range(3):
        q, k, v = (tokens @ part[head].T for part in rows)
        scores = np.where(hidden[:, 0], -np.inf, q @ k.swapaxes(1, 2) / np.sqrt(d) + added[0, head])
        e = np.exp(scores - scores.max(-1, keepdims=True))
        weights.append(e / e.sum(-1, keepdims=True))
        heads.append(weights[-1] @ v)
    return np.concatenate(heads, -1) @ entries["proj.weight"].T + entries["proj.bias"], np.stack(weights, 1)


def test_against_numpy_with_mask_and_bias():
    rng = np.random.default_rng(0)
    tokens, added = rng.standard_normal((2, 7, 12)), rng.standard_normal((1, 3, 7, 7))
    keep = rng.random((2, 1, 7, 7)) < 0.6
    keep[..., 3] = True
    with jax.enable_x64(True):
        attention = block()
        inputs = [jnp.asarray(x) for x in (tokens, keep, added)]
        out = np.asarray(attention(*inputs))
        weights = np.asarray(flax_attn.attention_maps(attention, *inputs)["weights"])
        entries = flax_attn.to_torch(attention)
    expected, expected_weights = by_hand(tokens, entries, hidden=~keep, added=added)
    assert relative_error(out, expected) <= OUTPUT
    assert relative_error(weights, expected_weights) <= MAP


def test_the_gate_comes_after_the_norm_and_the_norms_have_eps_1e_6():
    tokens = np.random.default_rng(0).standard_normal((2, 7, 12))
    with jax.enable_x64(True):
        attention = block(scale_norm=True, gated=True)
        plain = block()
        for name in ("qkv", "proj"):
            setattr(plain, name, getattr(attention, name))
        plain.proj = lambda heads: heads
        heads = np.asarray(plain(jnp.asarray(tokens)))
        out = np.asarray(attention(jnp.asarray(tokens)))
        entries = flax_attn.to_torch(attention)
    normed = (heads - heads.mean(-1, keepdims=True)) / np.sqrt(heads.var(-1, keepdims=True) + 1e-6)
    gated = normed / (1 + np.exp(-tokens @ entries["gate.weight"].T))
    assert relative_error(out, gated @ entries["proj.weight"].T + entries["proj.bias"]) <= OUTPUT


def shapes(**options):
    arrays = flax_attn.to_torch(SelfAttention(**options, rngs=nnx.Rngs(0)))
    return {name: array.shape for name, array in arrays.items()}


@pytest.mark.parametrize(("dim", "parameters"), [(32, 4128), (64, 16448)])
def test_entries_are_timms(dim, parameters):
    found = shapes(dim=dim, num_heads=4)
    assert found == {"qkv.weight": (3 * dim, dim), "proj.weight": (dim, dim), "proj.bias": (dim,)}
    assert sum(np.prod(shape) for shape in found.values()) == parameters


def test_entries_of_the_options():
    found = shapes(dim=32, num_heads=4, qkv_bias=True, qk_norm=True, scale_norm=True, gated=True, dim_out=20)
    assert found["qkv.bias"] == (96,)
    assert found["q_norm.weight"] == found["k_norm.bias"] == (8,)
    assert found["norm.weight"] == (32,)
    assert (found["gate.weight"], found["gate.bias"], found["proj.weight"]) == ((32, 32), (32,), (20, 32))


def test_a_checkpoint_of_torchs_multi_head_attention_loads():
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    attention = SelfAttention(12, 3, qkv_bias=True, rngs=nnx.Rngs(0))
    flax_attn.from_torch(attention, theirs.state_dict(), rename=flax_attn.convert.NAMES["torch.nn.MultiheadAttention"])
    np.testing.assert_array_equal(flax_attn.to_torch(attention)["qkv.weight"], theirs.in_proj_weight.detach())


def test_a_query_without_a_key_sees_all_alike():
    mask = jnp.ones((2, 1, 7, 7), bool).at[1, 0, 2].set(False)
    weights = flax_attn.attention_maps(SelfAttention(12, 3, rngs=nnx.Rngs(0)), jnp.ones((2, 7, 12)), mask)["weights"]
    assert relative_error(np.asarray(weights[1, :, 2]), np.full((3, 7), 1 / 7)) <= tolerance("map", "float32")


def test_dropout_acts_on_the_weights_and_on_the_output():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 12)), jnp.float32)
    attention = SelfAttention(12, 3, attn_drop=0.5, rngs=nnx.Rngs(0))
    assert (flax_attn.attention_maps(attention, x)["weights"] == 0).any()
    assert not (attention(x) == 0).any()
    assert (SelfAttention(12, 3, proj_drop=0.5, rngs=nnx.Rngs(0))(x) == 0).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim must be a whole number >= 1, got 0"),
        ({"num_heads": 5}, "num_heads must divide dim=12, got 5"),
        ({"attn_head_dim": 0}, "attn_head_dim must be a whole number >= 1, got 0"),
        ({"dim_out": 0}, "dim_out must be a whole number >= 1, got 0"),
        ({"attn_drop": 2}, "attn_drop must lie in [0, 1], got 2"),
        ({"proj_drop": -1}, "proj_drop must lie in [0, 1], got -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SelfAttention(**{"dim": 12, "num_heads": 3, **arguments}, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        ((7, 12), None, "tokens must have shape (b, n, dim=12), got (7, 12)"),
        ((2, 7, 13), None, "tokens must have shape (b, n, dim=12), got (2, 7, 13)"),
        ((2, 7, 12), (2, 7, 7), "mask must have shape (b, heads, n_query, n_key)=(2, 3, 7, 7), axes of size 1 allowed"),
    ],
)
def test_bad_shapes(tokens, mask, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SelfAttention(12, 3, rngs=nnx.Rngs(0))(jnp.ones(tokens), None if mask is None else jnp.ones(mask, bool))


def test_a_float_mask_is_refused():
    with pytest.raises(ValueError, match=r"mask must be of booleans or integers, .*bias=mask"):
        SelfAttention(12, 3, rngs=nnx.Rngs(0))(jnp.ones((2, 7, 12)), jnp.zeros((1, 1, 7, 7)))
