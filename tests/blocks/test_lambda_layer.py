import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn import LambdaLayer
from flax_attn.testing import relative_error, tolerance
from torch_ref.originals.original import declare_operators


def by_hand(weights, x, heads, k, u):
    """One image (h, w, dim), place by place, with batch norms that have just been made."""
    h, w, _ = x.shape
    qkv = x @ weights["qkv.weight"][:, :, 0, 0].T
    query, key, value = np.split(qkv, (heads * k, heads * k + u * k), axis=-1)
    query, value = query / np.sqrt(1 + 1e-5), value / np.sqrt(1 + 1e-5)
    query, key, value = query.reshape(h, w, heads, k), key.reshape(h, w, u, k), value.reshape(h, w, u, -1)
    content = np.einsum("hwuk,hwuv->kv", softmax(key, axis=(0, 1)), value)
    out = np.zeros((h, w, heads, value.shape[-1]))
    for y, x_ in np.ndindex(h, w):
        position = np.zeros_like(content)
        for j, i in np.ndindex(h, w):
            if "pos_emb" in weights:
                vector = weights["pos_emb"][j - y + h - 1, i - x_ + w - 1].reshape(k, u)
            else:
                kernel = weights["conv_lambda.weight"][..., 0]  # k, u, r, r
                reach = kernel.shape[-1] // 2
                near = max(abs(j - y), abs(i - x_)) <= reach
                vector = kernel[:, :, j - y + reach, i - x_ + reach] if near else np.zeros((k, u))
            position += vector @ value[j, i]
        position += weights.get("conv_lambda.bias", np.zeros(k))[:, None]
        out[y, x_] = query[y, x_] @ (content + position)
    return out.reshape(h, w, -1)


@pytest.mark.parametrize("arguments", [{"r": 3}, {"r": 3, "dim_u": 2}, {"r": None, "feat_size": (3, 4), "dim_u": 2}])
def test_against_numpy(arguments):
    with jax.enable_x64(True):
        block = LambdaLayer(5, 6, num_heads=2, dim_head=3, **arguments, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        block.eval()
        x = np.random.default_rng(0).standard_normal((1, 3, 4, 5))
        out = np.asarray(block(jnp.asarray(x)))[0]
        expected = by_hand(flax_attn.to_torch(block), x[0], 2, 3, arguments.get("dim_u", 1))
    assert relative_error(out, expected) <= tolerance("output", "float64")


@pytest.mark.parametrize(
    ("arguments", "entries", "count"),
    [
        ({"r": 5}, {"conv_lambda.weight": (16, 1, 5, 5, 1), "conv_lambda.bias": (16,)}, 3376),
        ({"r": None, "feat_size": (12, 8)}, {"pos_emb": (23, 15, 16)}, 8480),
    ],
)
def test_entries_are_timms(arguments, entries, count):
    block = LambdaLayer(32, **arguments, rngs=nnx.Rngs(0))
    found = {name: array.shape for name, array in flax_attn.to_torch(block).items()}
    others = {name: shape for name, shape in found.items() if not name.startswith("norm_")}
    assert others == {"qkv.weight": (88, 32, 1, 1), **entries}
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(block, nnx.Param))) == count


def test_a_table_with_an_axis_for_the_depth_loads():
    """As lambda-networks saves it."""
    block = LambdaLayer(4, num_heads=2, dim_head=3, r=None, feat_size=(2, 3), rngs=nnx.Rngs(0))
    weights = flax_attn.to_torch(block)
    flax_attn.from_torch(block, {**weights, "pos_emb": weights["pos_emb"][..., None]})
    np.testing.assert_array_equal(flax_attn.to_torch(block)["pos_emb"], weights["pos_emb"])


def test_timms_fails_where_the_output_is_wider():
    """It reshapes to the input's channels; `test_against_numpy` has such a layer."""
    declare_operators()
    from timm.layers import lambda_layer as timm

    with pytest.raises(RuntimeError, match="shape"):
        timm.LambdaLayer(8, 16, r=3)(torch.zeros(2, 8, 3, 3))


def test_no_array_of_all_pairs():
    block = LambdaLayer(8, num_heads=2, dim_head=3, r=None, feat_size=(20, 30), rngs=nnx.Rngs(0))
    program = jax.make_jaxpr(lambda x: nnx.clone(block)(x))(jnp.ones((1, 20, 30, 8))).jaxpr
    assert max(variable.aval.size for equation in program.eqns for variable in equation.outvars) < 600**2 / 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 3}, "num_heads must divide dim_out=8, got 3"),
        ({"r": 4}, "r must be odd, got 4"),
        ({"r": None}, "feat_size must be the height and width of the map where r is None, got None"),
        ({"r": None, "feat_size": (3, 0)}, "feat_size[1] must be a whole number >= 1, got 0"),
        ({"stride": 0}, "stride must be one of 1, 2, got 0"),
        ({"dim_head": 0}, "dim_head must be a whole number >= 1, got 0"),
        ({"dim_u": 0}, "dim_u must be a whole number >= 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LambdaLayer(8, **arguments, rngs=nnx.Rngs(0))


def test_maps_of_other_sizes():
    block = LambdaLayer(8, r=None, feat_size=(3, 5), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h=3, w=5, dim=8), got (1, 5, 3, 8)")):
        block(jnp.ones((1, 5, 3, 8)))
    assert LambdaLayer(8, r=3, rngs=nnx.Rngs(0))(jnp.ones((2, 1, 1, 8))).shape == (2, 1, 1, 8)
