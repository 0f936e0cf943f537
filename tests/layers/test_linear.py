"""Linear and Embedding: what they compute, and in which dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flax_attn.layers import Embedding, Linear
from flax_attn.testing import relative_error, tolerance


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_a_product_and_a_sum(bias):
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    with jax.enable_x64(True):
        linear = Linear(3, 7, bias=bias, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out, kernel = np.asarray(linear(jnp.asarray(x))), np.asarray(linear.kernel[...])
        bias = np.asarray(linear.bias[...]) if bias else 0
    assert relative_error(out, np.einsum("bni,io->bno", x, kernel) + bias) <= tolerance("output", "float64")


def test_linear_without_a_bias_has_none():
    assert Linear(3, 7, bias=False, rngs=nnx.Rngs(0)).bias is None


@pytest.mark.parametrize("param_dtype", ["bfloat16", "float32", "float64"])
def test_embedding_looks_rows_up_without_rounding(param_dtype):
    with jax.enable_x64(True):
        embedding = Embedding(7, 3, param_dtype=param_dtype, rngs=nnx.Rngs(0))
        rows, table = embedding(jnp.array([5, 0])), embedding.embedding[...]
        assert rows.dtype == param_dtype
        np.testing.assert_array_equal(rows, np.asarray(table)[[5, 0]])
