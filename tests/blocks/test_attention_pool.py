import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import softmax
from torch.nn import functional as F

import flax_attn
from flax_attn.blocks.attention_pool import AttentionPool2d, RotaryAttentionPool2d
from flax_attn.testing import relative_error, tolerance

OUTPUT, MAP = tolerance("output", "float64"), tolerance("map", "float64")
X = np.random.default_rng(0).standard_normal((2, 3, 5, 8))
BOTH = pytest.mark.parametrize("cls", [AttentionPool2d, RotaryAttentionPool2d])


def called(cls, x=X, **options):
    """Output, recorded weights and entries of a pool in float64."""
    with jax.enable_x64(True):
        pool = cls(8, **{"num_heads": 2, **options}, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out = np.asarray(pool(jnp.asarray(x)))
        weights = np.asarray(flax_attn.attention_maps(pool, jnp.asarray(x))["weights"])
        return out, weights, flax_attn.to_torch(pool)


def turned(x, size):
    """Queries or keys (b, 1 + n, 4): a complex number that turns with the row, and one that turns with the column."""
    rows, columns = np.divmod(np.arange(15), 5)
    angles = np.stack([rows / 3 * size[0], columns / 5 * size[1]], -1)
    places = (x[:, 1:, ::2] + 1j * x[:, 1:, 1::2]) * np.exp(1j * angles)
    return np.concatenate([x[:, :1], np.stack([places.real, places.imag], -1).reshape(2, 15, 4)], axis=1)


def by_hand(entries, tokens, turn):
    """All tokens' outputs and weights, head by head."""
    q, k, v = np.split(tokens @ entries["qkv.weight"].T + entries["qkv.bias"], 3, axis=-1)
    heads, weights = [], []
    for head in range(2):
        here = slice(4 * head, 4 * head + 4)
        weights.append(softmax(turn(q[..., here]) @ turn(k[..., here]).swapaxes(1, 2) / 2, -1))
        heads.append(weights[-1] @ v[..., here])
    return np.concatenate(heads, -1) @ entries["proj.weight"].T + entries["proj.bias"], np.stack(weights, 1)


@pytest.mark.parametrize("pool_type", ["token", ""])
@BOTH
def test_against_numpy(cls, pool_type):
    learned = cls is AttentionPool2d
    size = {"feat_size": (3, 5)} if learned else {"ref_feat_size": (7, 11)}
    out, weights, entries = called(cls, out_features=6, pool_type=pool_type, **size)
    places = X.reshape(2, 15, 8)
    tokens = np.concatenate([places.mean(1, keepdims=True), places], axis=1)
    if learned:
        tokens = tokens + entries["pos_embed"]
    every, every_weight = by_hand(entries, tokens, (lambda x: x) if learned else lambda x: turned(x, (7, 11)))
    if pool_type == "token":
        assert relative_error(out, every[:, 0]) <= OUTPUT
        assert relative_error(weights, every_weight[:, :, :1, 1:]) <= MAP
    else:
        assert relative_error(out, every[:, 1:].reshape(2, 3, 5, 6)) <= OUTPUT
        assert relative_error(weights, every_weight[:, :, 1:, 1:]) <= MAP


@pytest.mark.parametrize("feat_size", [(7, 5), (2, 3)])
def test_the_table_is_resized_as_in_pytorch(feat_size):
    out, _, entries = called(AttentionPool2d, feat_size=feat_size)
    table = torch.from_numpy(entries["pos_embed"][1:].T.reshape(1, 8, *feat_size))
    resized = F.interpolate(table, (3, 5), mode="bicubic", antialias=True)[0].flatten(1).T.numpy()
    with jax.enable_x64(True):
        fitting = AttentionPool2d(8, (3, 5), num_heads=2, param_dtype=jnp.float64, rngs=nnx.Rngs(1))
        flax_attn.from_torch(fitting, {**entries, "pos_embed": np.concatenate([entries["pos_embed"][:1], resized])})
        assert relative_error(out, np.asarray(fitting(jnp.asarray(X)))) <= OUTPUT


@pytest.mark.parametrize(
    ("cls", "channels", "options", "parameters"),
    [
        (AttentionPool2d, 32, {"feat_size": (12, 8), "out_features": 20, "head_dim": 8}, 6932),
        (AttentionPool2d, 64, {}, 19840),
        (RotaryAttentionPool2d, 32, {"out_features": 20, "head_dim": 8}, 3828),
        (RotaryAttentionPool2d, 64, {}, 16640),
    ],
)
def test_number_of_parameters(cls, channels, options, parameters):
    entries = flax_attn.to_torch(cls(channels, **options, rngs=nnx.Rngs(0)))
    assert sum(array.size for array in entries.values()) == parameters
    assert entries["qkv.weight"].shape == (3 * channels, channels)


@BOTH
def test_entries_of_the_options(cls):
    options = {"num_heads": 2, "qkv_separate": True, "qkv_bias": False, "out_features": 0}
    names = set(flax_attn.to_torch(cls(8, **options, rngs=nnx.Rngs(0))))
    assert names - {"pos_embed"} == {"q.weight", "k.weight", "v.weight"}
    token = flax_attn.to_torch(cls(8, num_heads=2, class_token=True, rngs=nnx.Rngs(0)))["cls_token"]
    np.testing.assert_array_equal(token, np.zeros((1, 8)))


def test_the_positions_and_projections_start_normal_and_biases_at_zero():
    pool = AttentionPool2d(100, rngs=nnx.Rngs(0), num_heads=2)
    for drawn in (pool.pos_embed, pool.qkv.kernel):
        assert 0.95 < np.std(drawn[...]) / 0.1 < 1.05
    assert not np.any(pool.qkv.bias[...])
    cut = AttentionPool2d(1, 40, head_dim=1, rngs=nnx.Rngs(0)).pos_embed[...]
    assert -2 <= cut.min() < -1.9
    assert 1.9 < cut.max() <= 2


@pytest.mark.parametrize("head_dim", [4, 12, 20])
def test_all_features_of_a_head_turn(head_dim):
    pool = RotaryAttentionPool2d(head_dim, num_heads=1, pool_type="", rngs=nnx.Rngs(0))
    nnx.eval_shape(lambda: pool(jnp.ones((1, 2, 3, head_dim))))


def test_only_the_first_query_is_computed():
    pool = RotaryAttentionPool2d(8, num_heads=2, rngs=nnx.Rngs(0))
    assert "1148,1148" not in str(jax.make_jaxpr(lambda x: pool(x))(jnp.ones((1, 31, 37, 8))))
    assert flax_attn.attention_maps(pool, jnp.ones((1, 3, 5, 8)))["weights"].shape == (1, 2, 1, 15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_features": 0}, "in_features must be a whole number >= 1, got 0"),
        ({"out_features": -1}, "out_features must be a whole number >= 0, got -1"),
        ({"num_heads": 3}, "num_heads must divide embed_dim=8, got 3"),
        ({"num_heads": None}, "head_dim must divide embed_dim=8, got 64"),
        ({"embed_dim": 12, "class_token": True}, "embed_dim must be in_features=8 with class_token, got 12"),
        ({"pool_type": "avg"}, "pool_type must be one of 'token', '', got 'avg'"),
        ({"drop_rate": 2}, "drop_rate must lie in [0, 1], got 2"),
    ],
)
@BOTH
def test_bad_arguments(cls, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        cls(**{"in_features": 8, "num_heads": 2, **options}, rngs=nnx.Rngs(0))


def test_bad_sizes():
    with pytest.raises(ValueError, match=re.escape("feat_size[1] must be a whole number >= 1, got 0")):
        AttentionPool2d(8, (3, 0), num_heads=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape("ref_feat_size[0] must be a whole number >= 1, got 0")):
        RotaryAttentionPool2d(8, ref_feat_size=0, num_heads=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape("must be a multiple of 4, got 6")):
        RotaryAttentionPool2d(12, num_heads=2, rngs=nnx.Rngs(0))


@BOTH
def test_bad_shapes(cls):
    pool = cls(8, num_heads=2, rngs=nnx.Rngs(0))
    for shape in ((2, 5, 8), (2, 3, 5, 7)):
        with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=8), got {shape}")):
            pool(jnp.ones(shape))
