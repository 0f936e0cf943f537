import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn import HaloAttention
from flax_attn.testing import relative_error, tolerance

CLOSE = tolerance("input gradient", "float32")


def by_hand(weights, x, heads, block, halo, *, masked):
    """One image (h, w, dim), query by query and head by head; ``masked`` with all that halonet-pytorch adds."""
    h, w, _ = x.shape
    d = weights["pos_embed.height_rel"].shape[1]
    window = block + 2 * halo
    around = ((halo, halo), (halo, halo), (0, 0))
    query = x @ weights["q.weight"][:, :, 0, 0].T
    keys = np.pad(x @ weights["kv.weight"][:, :, 0, 0].T, around)
    inside = np.pad(np.ones((h, w, 1), bool), around)[..., 0]
    out = np.zeros((h, w, heads, keys.shape[-1] // heads - d))
    for y, x_, head in np.ndindex(h, w, heads):
        q = query[y, x_, head * d :][:d]
        top, left = y // block * block, x_ // block * block
        kv = np.split(keys[top : top + window, left : left + window], heads, axis=-1)[head]
        rows = weights["pos_embed.height_rel"][np.arange(window) - y % block + window - 1]
        columns = weights["pos_embed.width_rel"][np.arange(window) - x_ % block + window - 1]
        positions = (rows @ q)[:, None] + columns @ q
        scores = kv[..., :d] @ q / np.sqrt(d) + positions / (np.sqrt(d) if masked else 1)
        if masked:
            scores[~inside[top : top + window, left : left + window]] = -np.inf
        out[y, x_, head] = np.einsum("ji,jid->d", softmax(scores), kv[..., d:])
    out = out.reshape(h, w, -1)
    return out @ weights["proj.weight"].T + weights["proj.bias"] if masked else out


@pytest.mark.parametrize("masked", [False, True])
def test_against_numpy(masked):
    options = dict.fromkeys(("scale_pos_embed", "mask_padding", "out_proj"), masked)
    with jax.enable_x64(True):
        block = HaloAttention(
            5,
            6,
            num_heads=2,
            dim_head=4,
            block_size=2,
            halo_size=1,
            **options,
            param_dtype=jnp.float64,
            rngs=nnx.Rngs(0),
        )
        x = np.random.default_rng(0).standard_normal((1, 4, 6, 5))
        out = np.asarray(block(jnp.asarray(x)))[0]
        expected = by_hand(flax_attn.to_torch(block), x[0], 2, 2, 1, masked=masked)
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_entries_are_timms():
    arguments = {"num_heads": 4, "block_size": 4, "halo_size": 2}
    entries = flax_attn.to_torch(HaloAttention(32, **arguments, rngs=nnx.Rngs(0)))
    assert {name: array.shape for name, array in entries.items()} == {
        "q.weight": (32, 32, 1, 1),
        "kv.weight": (64, 32, 1, 1),
        "pos_embed.height_rel": (15, 8),
        "pos_embed.width_rel": (15, 8),
    }
    assert sum(array.size for array in entries.values()) == 3312


@pytest.mark.parametrize("avg_down", [False, True])
def test_odd_blocks_are_pooled_whatever_is_asked(avg_down):
    arguments = {"num_heads": 2, "block_size": 3, "halo_size": 1}
    whole = HaloAttention(8, **arguments, rngs=nnx.Rngs(0))
    half = HaloAttention(8, stride=2, avg_down=avg_down, **arguments, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 6, 12, 8))
    pooled = np.asarray(whole(x)).reshape(1, 3, 2, 6, 2, 8).mean((2, 4))
    np.testing.assert_allclose(half(x), pooled, atol=CLOSE)


def test_masked_places_get_no_weight():
    block = HaloAttention(8, num_heads=2, block_size=2, halo_size=1, mask_padding=True, rngs=nnx.Rngs(0))
    (weights,) = flax_attn.attention_maps(block, jnp.ones((1, 4, 4, 8))).values()
    assert weights.shape == (4, 2, 4, 16)
    first = weights[0].reshape(2, 4, 4, 4)  # of the block in the upper left corner
    assert float(jnp.abs(first[..., 0, :]).max()) == float(jnp.abs(first[..., :, 0]).max()) == 0
    assert float(first[..., 1:, 1:].min()) > 0


def test_another_port_hides_the_map_and_sees_the_padding():
    """fightingcv_attention's mask is the complement of halonet-pytorch's: a block with no padding loses all keys."""
    from fightingcv_attention.attention.HaloAttention import HaloAttention as Port

    theirs = Port(dim=8, block_size=2, halo_size=1, dim_head=4, heads=2)
    x = torch.randn(1, 8, 2, 2, generator=torch.Generator().manual_seed(0))
    options = dict.fromkeys(("scale_pos_embed", "mask_padding", "out_proj"), True)
    ours = HaloAttention(8, num_heads=2, block_size=2, halo_size=1, **options, rngs=nnx.Rngs(0))
    # On a map of one block it attends to padding alone, whose values are 0: only the last bias is left.
    bias = theirs.to_out.bias.detach().numpy()
    np.testing.assert_allclose(theirs(x).detach().numpy()[0, :, 0, 0], bias, atol=CLOSE)
    assert float(jnp.ptp(ours(jnp.asarray(x.numpy().transpose(0, 2, 3, 1))))) > 0.01


def test_memory_grows_with_the_places_and_not_with_their_square():
    block = HaloAttention(8, num_heads=1, block_size=2, halo_size=1, rngs=nnx.Rngs(0))

    def largest(h, w):
        program = jax.make_jaxpr(block)(jnp.ones((1, h, w, 8))).jaxpr
        return max(variable.aval.size for equation in program.eqns for variable in equation.outvars)

    assert largest(16, 32) == 4 * largest(8, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 3}, "num_heads must divide dim_out=8, got 3"),
        ({"block_size": 0}, "block_size must be a whole number >= 1, got 0"),
        ({"halo_size": -1}, "halo_size must be a whole number >= 0, got -1"),
        ({"stride": 4}, "stride must be one of 1, 2, got 4"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        HaloAttention(8, **arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 4, 7), "x must have shape (b, h, w, dim=8), got (1, 4, 4, 7)"),
        ((1, 4, 6, 8), "block_size must divide the map's height and width (4, 6), got 4"),
    ],
)
def test_bad_maps(shape, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        HaloAttention(8, block_size=4, rngs=nnx.Rngs(0))(jnp.ones(shape))
