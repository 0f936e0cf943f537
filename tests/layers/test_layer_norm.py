"""LayerNorm: PyTorch's eps, and a variance that keeps its digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flax_attn.layers import LayerNorm
from flax_attn.testing import relative_error, tolerance


@pytest.mark.parametrize(("options", "eps"), [({}, 1e-5), ({"eps": 1e-6}, 1e-6), ({"eps": 0.5}, 0.5)])
def test_against_numpy(options, eps):
    rng = np.random.default_rng(0)
    x, scale, bias = rng.standard_normal((2, 5, 7)), rng.standard_normal(7), rng.standard_normal(7)
    with jax.enable_x64(True):
        norm = LayerNorm(7, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        norm.scale[...], norm.bias[...] = scale, bias
        out = np.asarray(norm(jnp.asarray(x)))
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    assert relative_error(out, (x - mean) / np.sqrt(var + eps) * scale + bias) <= tolerance("output", "float64")


def test_a_large_common_offset_cancels():
    x = np.array([[4096.0, 4097.0, 4098.0, 4101.0]])  # exact in float32, their squares are not
    expected = (x - 4098) / np.sqrt(3.5 + 1e-5)
    single = tolerance("output", "float32")
    out = LayerNorm(4, rngs=nnx.Rngs(0))(jnp.asarray(x, jnp.float32))
    assert relative_error(np.asarray(out), expected) <= single
    flaxs = nnx.LayerNorm(4, epsilon=1e-5, rngs=nnx.Rngs(0))(jnp.asarray(x, jnp.float32))
    assert relative_error(np.asarray(flaxs), expected) > single
