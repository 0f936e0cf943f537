import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn import BottleneckAttention
from flax_attn.testing import relative_error, tolerance


def by_hand(weights, x, heads, *, scale_positions):
    """One image (h, w, dim), head by head and pair by pair of places."""
    h, w, _ = x.shape
    d = weights["pos_embed.height_rel"].shape[1]
    qkv = x @ weights["qkv.weight"][:, :, 0, 0].T
    query, key, value = np.split(qkv, (heads * d, 2 * heads * d), axis=-1)
    out = np.zeros_like(value)
    for head in range(heads):
        mine = slice(head * d, (head + 1) * d)
        scores = np.zeros((h, w, h, w))
        for y, x_, j, i in np.ndindex(h, w, h, w):
            relative = weights["pos_embed.height_rel"][j - y + h - 1] + weights["pos_embed.width_rel"][i - x_ + w - 1]
            q = query[y, x_, mine]
            scores[y, x_, j, i] = q @ key[j, i, mine] / np.sqrt(d)
            scores[y, x_, j, i] += q @ relative / (np.sqrt(d) if scale_positions else 1)
        mixing = softmax(scores.reshape(h, w, h * w), axis=-1)
        theirs = np.split(np.arange(value.shape[-1]), heads)[head]
        out[..., theirs] = mixing @ value[..., theirs].reshape(h * w, -1)
    return out


@pytest.mark.parametrize("scale_positions", [False, True])
def test_against_numpy(scale_positions):
    with jax.enable_x64(True):
        block = BottleneckAttention(
            5,
            6,
            (3, 4),
            num_heads=2,
            dim_head=7,
            scale_pos_embed=scale_positions,
            param_dtype=jnp.float64,
            rngs=nnx.Rngs(0),
        )
        x = np.random.default_rng(0).standard_normal((1, 3, 4, 5))
        out = np.asarray(block(jnp.asarray(x)))[0]
        expected = by_hand(flax_attn.to_torch(block), x[0], 2, scale_positions=scale_positions)
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_entries_are_timms():
    entries = flax_attn.to_torch(BottleneckAttention(32, feat_size=(12, 8), rngs=nnx.Rngs(0)))
    assert {name: array.shape for name, array in entries.items()} == {
        "qkv.weight": (96, 32, 1, 1),
        "pos_embed.height_rel": (23, 8),
        "pos_embed.width_rel": (15, 8),
    }
    assert sum(array.size for array in entries.values()) == 3376


def test_initial_values_are_timms():
    entries = flax_attn.to_torch(BottleneckAttention(64, feat_size=(20, 20), num_heads=1, rngs=nnx.Rngs(0)))
    assert 0.9 < entries["qkv.weight"].std() * 64**0.5 < 1.1
    assert 0.9 < entries["pos_embed.height_rel"].std() * 64**0.5 < 1.1


def test_no_array_of_all_pairs_unless_it_is_recorded():
    block = BottleneckAttention(8, feat_size=(20, 30), num_heads=1, rngs=nnx.Rngs(0))
    block.eval()
    x = jnp.ones((1, 20, 30, 8))
    assert "600,600" not in str(jax.make_jaxpr(block)(x))
    (weights,) = jax.eval_shape(lambda: flax_attn.attention_maps(block, x)).values()
    assert weights.shape == (1, 1, 600, 600)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "feat_size must be the height and width of the map, got None"),
        ({"feat_size": (0, 3)}, "feat_size[0] must be a whole number >= 1, got 0"),
        ({"feat_size": (3, 3), "num_heads": 3}, "num_heads must divide dim_out=8, got 3"),
        ({"feat_size": (3, 3), "stride": 3}, "stride must be one of 1, 2, got 3"),
        ({"feat_size": (3, 3), "dim_head": 0}, "dim_head must be a whole number >= 1, got 0"),
        ({"feat_size": (3, 3), "qk_ratio": 0}, "qk_ratio must be a number above 0, got 0"),
        (
            {"feat_size": (3, 3), "dim_out": 16, "num_heads": 16, "qk_ratio": 0.5},
            "num_heads must be at most 8, the features of all queries, got 16",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BottleneckAttention(8, **arguments, rngs=nnx.Rngs(0))


def test_a_map_of_another_size():
    block = BottleneckAttention(8, feat_size=(3, 5), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h=3, w=5, dim=8), got (1, 5, 3, 8)")):
        block(jnp.ones((1, 5, 3, 8)))
