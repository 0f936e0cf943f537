import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn.blocks.ufo import UFOAttention
from flax_attn.testing import relative_error, tolerance
from torch_ref.blocks.ufo import UFOAttention as Twin


def test_against_numpy():
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((2, n, 6)) for n in (3, 5, 5))
    with jax.enable_x64(True):
        block = UFOAttention(6, 4, 3, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        entries = {name: rng.standard_normal(array.shape) for name, array in flax_attn.to_torch(block).items()}
        flax_attn.from_torch(block, entries)
        out, weights = block(*map(jnp.asarray, (query, key, value)))
    assert weights is None
    q, k, v = (
        x @ entries[f"fc_{name}.weight"].T + entries[f"fc_{name}.bias"]
        for name, x in (("q", query), ("k", key), ("v", value))
    )
    heads = []
    for head in range(2):
        gamma = entries["gamma"][0, head, 0, 0]
        one_q, one_k, one_v = q[..., 4 * head :][..., :4], k[..., 4 * head :][..., :4], v[..., 3 * head :][..., :3]
        context = np.einsum("bnk,bnv->bkv", one_k, one_v)
        context *= gamma / np.linalg.norm(context, axis=-1, keepdims=True)
        heads.append(gamma * one_q / np.linalg.norm(one_q, axis=-1, keepdims=True) @ context)
    expected = np.concatenate(heads, -1) @ entries["fc_o.weight"].T + entries["fc_o.bias"]
    assert relative_error(np.asarray(out), expected) <= tolerance("output", "float64")


@pytest.mark.parametrize(("features", "count"), [(32, 4228), (64, 16644)])
def test_as_many_parameters_as_published(features, count):
    block = UFOAttention(features, features // 4, features // 4, 4, rngs=nnx.Rngs(0))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(block, nnx.Param))) == count


def test_initial_values_are_those_of_the_published_code():
    entries = flax_attn.to_torch(UFOAttention(64, 16, 16, 4, rngs=nnx.Rngs(0)))
    assert entries["gamma"].shape == (1, 4, 1, 1)
    for name in ("q", "k", "v", "o"):
        assert not entries[f"fc_{name}.bias"].any()
        assert abs(entries[f"fc_{name}.weight"].std() / 0.001 - 1) < 0.1


def test_a_token_of_zeros_is_not_a_number_as_in_pytorch():
    tokens = np.ones((1, 3, 6), np.float32)
    tokens[:, 0] = 0
    out, _ = UFOAttention(6, 4, 3, 2, rngs=nnx.Rngs(0))(*[jnp.asarray(tokens)] * 3)
    theirs, _ = Twin(6, 4, 3, 2)(*[torch.from_numpy(tokens)] * 3)
    for one in (np.asarray(out), theirs.detach().numpy()):
        assert np.isnan(one[:, 0]).all()
        assert np.isfinite(one[:, 1:]).all()


def test_no_array_of_queries_times_keys_is_made():
    block = UFOAttention(6, 4, 3, 2, rngs=nnx.Rngs(0))
    tokens = jax.ShapeDtypeStruct((1, 1009, 6), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda x: block(x, x, x)[0])(tokens)
    assert max(variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars) < 1009 * 1009


@pytest.mark.parametrize("position", range(4))
def test_bad_arguments(position):
    arguments = [6, 4, 3, 2]
    arguments[position] = 0
    name = ("d_model", "d_k", "d_v", "h")[position]
    with pytest.raises(ValueError, match=f"{name} must be a whole number >= 1, got 0"):
        UFOAttention(*arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3, 5), (2, 3, 6), (2, 3, 6)), "query must have shape (b, n_query, d_model=6), got (2, 3, 5)"),
        (((2, 3, 6), (1, 3, 6), (1, 3, 6)), "key must have shape (b=2, n_key, d_model=6), got (1, 3, 6)"),
        (((2, 3, 6), (2, 3, 6), (2, 4, 6)), "value must have shape (b=2, n_key=3, d_model=6), got (2, 4, 6)"),
    ],
)
def test_bad_shapes(shapes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        UFOAttention(6, 4, 3, 2, rngs=nnx.Rngs(0))(*map(jnp.ones, shapes))
