import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax
from scipy.stats import kstest, uniform

import flax_attn
from flax_attn.blocks.multi_query import MultiQueryAttention2d
from flax_attn.testing import relative_error, tolerance
from flax_attn.testing.tolerances import P_VALUE


def test_against_numpy():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 12))
    with jax.enable_x64(True):
        block = MultiQueryAttention2d(
            12, 7, num_heads=3, key_dim=5, value_dim=2, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        out = np.asarray(block(jnp.asarray(x)))
        recorded = np.asarray(flax_attn.attention_maps(block, jnp.asarray(x))["weights"])
        entries = {name: array[:, :, 0, 0] for name, array in flax_attn.to_torch(block).items()}
    tokens = x.reshape(2, 15, 12)
    key, value = tokens @ entries["key.proj.weight"].T, tokens @ entries["value.proj.weight"].T
    heads = []
    for head in range(3):
        query = tokens @ entries["query.proj.weight"][5 * head : 5 * head + 5].T
        weights = softmax(query @ key.swapaxes(1, 2) / np.sqrt(5), -1)
        assert relative_error(recorded[:, head], weights) <= tolerance("map", "float64")
        heads.append(weights @ value)
    expected = np.concatenate(heads, -1) @ entries["output.proj.weight"].T
    assert relative_error(out, expected.reshape(2, 3, 5, 7)) <= tolerance("output", "float64")


@pytest.mark.parametrize(("dim", "plain", "strided"), [(32, 2560, 3328), (64, 9216, 10752)])
def test_number_of_parameters(dim, plain, strided):
    for strides, expected in ((1, plain), (2, strided)):
        block = MultiQueryAttention2d(
            dim, num_heads=dim // 8, query_strides=strides, kv_stride=strides, rngs=nnx.Rngs(0)
        )
        assert sum(x.size for x in jax.tree.leaves(nnx.state(block, nnx.Param))) == expected


def test_entries_are_timms():
    entries = flax_attn.to_torch(MultiQueryAttention2d(32, num_heads=4, query_strides=2, kv_stride=2, rngs=nnx.Rngs(0)))
    shapes = {name: array.shape for name, array in entries.items() if "norm" not in name}
    assert shapes == {
        "query.proj.weight": (32, 32, 1, 1),
        **dict.fromkeys(("key.down_conv.weight", "value.down_conv.weight"), (32, 1, 3, 3)),
        **dict.fromkeys(("key.proj.weight", "value.proj.weight"), (8, 32, 1, 1)),
        "output.proj.weight": (32, 32, 1, 1),
    }
    assert {name.rpartition(".")[0] for name in entries if "norm" in name} == {"query.norm", "key.norm", "value.norm"}


def test_sizes_that_strides_do_not_divide_lose_rows():
    block = MultiQueryAttention2d(8, num_heads=2, query_strides=(2, 3), kv_stride=2, rngs=nnx.Rngs(0))
    assert block(jnp.ones((2, 11, 11, 8))).shape == (2, 10, 9, 8)


def test_kernels_start_as_xaviers():
    block = MultiQueryAttention2d(64, num_heads=2, kv_stride=2, rngs=nnx.Rngs(0))
    kernels = {
        np.sqrt(6 / (64 + 32)): block.key.proj.kernel,
        np.sqrt(6 / (9 + 9 * 64)): block.key.down_conv.kernel,
        np.sqrt(6 / 128): block.output["proj"].kernel,
    }
    for bound, kernel in kernels.items():
        assert kstest(np.asarray(kernel[...]).ravel(), uniform(-bound, 2 * bound).cdf).pvalue > P_VALUE


def test_many_places_make_no_array_of_pairs_and_no_key_per_head():
    block = MultiQueryAttention2d(8, num_heads=4, rngs=nnx.Rngs(0))
    jaxpr = str(jax.make_jaxpr(lambda x: block(x))(jnp.ones((1, 31, 37, 8))))
    assert "1147,1147" not in jaxpr
    assert "1147,4,2" in jaxpr.replace("1,4,1147,2", "")  # the queries, head by head
    assert "f32[1,1147,1,2]" in jaxpr  # the one key


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim must be a whole number >= 1, got 0"),
        ({"num_heads": 5}, "num_heads must divide dim=12, got 5"),
        ({"num_heads": 5, "key_dim": 2}, "num_heads must divide dim=12, got 5"),
        ({"dim_out": 0}, "dim_out must be a whole number >= 1, got 0"),
        ({"value_dim": 0}, "value_dim must be a whole number >= 1, got 0"),
        ({"dw_kernel_size": 4}, "dw_kernel_size must be odd, got 4"),
        ({"query_strides": (2, 0)}, "query_strides[1] must be a whole number >= 1, got 0"),
        ({"kv_stride": 0}, "kv_stride must be a whole number >= 1, got 0"),
        ({"attn_drop": 2}, "attn_drop must lie in [0, 1], got 2"),
        ({"proj_drop": 2}, "proj_drop must lie in [0, 1], got 2"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MultiQueryAttention2d(**{"dim": 12, "num_heads": 3, **arguments}, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 5, 12), "x must have shape (b, h, w, c=12), got (2, 5, 12)"),
        ((2, 3, 5, 13), "x must have shape (b, h, w, c=12), got (2, 3, 5, 13)"),
        ((2, 3, 1, 12), "x must be at least (2, 2) pixels, its query_strides, got (3, 1)"),
        ((2, 1, 3, 12), "x must be at least (2, 2) pixels, its query_strides, got (1, 3)"),
    ],
)
def test_bad_shapes(shape, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MultiQueryAttention2d(12, num_heads=3, query_strides=2, rngs=nnx.Rngs(0))(jnp.ones(shape))
