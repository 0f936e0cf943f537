import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn.blocks.differential import DifferentialAttention
from flax_attn.testing import relative_error, tolerance

OUTPUT, MAP = tolerance("output", "float64"), tolerance("map", "float64")
TOKENS = np.random.default_rng(0).standard_normal((2, 7, 12))


@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize("depth", [0, 5])
def test_against_numpy(depth, dual):
    keep = np.random.default_rng(1).random((2, 1, 7, 7)) < 0.6
    keep[..., 3] = True
    with jax.enable_x64(True):
        attention = DifferentialAttention(
            12, 2, depth=depth, dual_lambda=dual, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        if dual:
            attention.lambda_a[...], attention.lambda_b[...] = 0.3, -0.2
        inputs = [jnp.asarray(TOKENS), jnp.asarray(keep)]
        out = np.asarray(attention(*inputs))
        weights = np.asarray(flax_attn.attention_maps(attention, *inputs)["weights"])
        entries = flax_attn.to_torch(attention)
    logits = [0.3, -0.2] if dual else [entries[f"lambda_q{i}"] @ entries[f"lambda_k{i}"] for i in (1, 2)]
    start = 0.8 - 0.6 * np.exp(-0.3 * depth)
    weight = np.exp(logits[0]) - np.exp(logits[1]) + start
    q, k, v = np.split(TOKENS @ entries["qkv.weight"].T, 3, axis=-1)
    heads = []
    for head in range(2):
        maps = []
        for half in (2 * head, 2 * head + 1):  # of three features each; consecutive ones form a head
            here = slice(3 * half, 3 * half + 3)
            scores = q[..., here] @ k[..., here].swapaxes(1, 2) / np.sqrt(3)
            maps.append(softmax(np.where(keep[:, 0], scores, -np.inf), -1))
        difference = maps[0] - weight * maps[1]
        assert relative_error(weights[:, head], difference) <= MAP
        x = difference @ v[..., 6 * head : 6 * head + 6]
        heads.append(x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * (1 - start))
    expected = np.concatenate(heads, -1) @ entries["proj.weight"].T + entries["proj.bias"]
    assert relative_error(out, expected) <= OUTPUT
    assert (weights < 0).any()


def entries_of(*arguments, **options):
    return flax_attn.to_torch(DifferentialAttention(*arguments, **options, rngs=nnx.Rngs(0)))


def test_entries_are_timms():
    entries = entries_of(32, 2)
    assert {name: array.shape for name, array in entries.items()} == {
        **dict.fromkeys(("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"), (8,)),
        "qkv.weight": (96, 32),
        "sub_norm.weight": (16,),
        "proj.weight": (32, 32),
        "proj.bias": (32,),
    }
    assert sum(array.size for array in entries.values()) == 4176
    assert sum(array.size for array in entries_of(64).values()) == 16472
    assert (
        entries_of(32, 2, dual_lambda=True)["lambda_a"],
        entries_of(32, 2, qk_norm=True)["q_norm.weight"].shape,
    ) == (
        0,
        (8,),
    )


def test_lambdas_start_normal_with_deviation_a_tenth():
    drawn = np.concatenate([entries_of(800, 1)[f"lambda_{name}"] for name in ("q1", "k1", "q2", "k2")])
    assert len(set(drawn)) == 1600
    assert 0.90 < np.std(drawn) / 0.1 < 1.10


def test_many_tokens_make_no_array_of_pairs():
    def outputs(x):
        return DifferentialAttention(4, 1, rngs=nnx.Rngs(0))(x)

    jaxpr = str(jax.make_jaxpr(outputs)(jnp.ones((1, 1009, 4))))
    assert "1009,1009" not in jaxpr
    assert "1009" in jaxpr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim must be a whole number >= 1, got 0"),
        ({"num_heads": 4}, "2 * num_heads must divide dim=12, got num_heads=4"),
        ({"depth": -1}, "depth must be a whole number >= 0, got -1"),
        ({"attn_drop": 2}, "attn_drop must lie in [0, 1], got 2"),
        ({"proj_drop": -1}, "proj_drop must lie in [0, 1], got -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DifferentialAttention(**{"dim": 12, "num_heads": 2, **arguments}, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(7, 12), (2, 7, 13)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"tokens must have shape (b, n, dim=12), got {shape}")):
        DifferentialAttention(12, 2, rngs=nnx.Rngs(0))(jnp.ones(shape))


def test_a_float_mask_is_refused():
    with pytest.raises(ValueError, match=r"mask must be of booleans or integers, .*bias=mask"):
        DifferentialAttention(12, 2, rngs=nnx.Rngs(0))(jnp.ones((2, 7, 12)), jnp.zeros((1, 1, 7, 7)))
