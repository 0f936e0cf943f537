"""The bias of a layer in bfloat16: a narrow result, and a gradient that counts right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flax_attn.layers import Conv, Linear

PLACES = 4001
COTANGENT = jnp.asarray(np.random.default_rng(0).standard_normal((PLACES, 5)), jnp.bfloat16)
# The true sum, rounded once.
EXPECTED = np.asarray(COTANGENT, np.float64).sum(0).astype(jnp.bfloat16).tolist()

LAYERS = {
    "Linear": (lambda **options: Linear(3, 5, **options, rngs=nnx.Rngs(0)), (PLACES, 3)),
    "Conv": (lambda **options: Conv(3, 5, (1,), **options, rngs=nnx.Rngs(0)), (1, PLACES, 3)),
}


def bias_gradient(layer, x):
    graphdef, params = nnx.split(layer, nnx.Param)

    def loss(params):
        return jnp.sum((nnx.merge(graphdef, params)(x) * COTANGENT).astype(jnp.float32))

    return jax.grad(loss)(params)["bias"][...]


@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_is_summed_in_float32(name):
    make, shape = LAYERS[name]
    gradient = bias_gradient(make(param_dtype=jnp.bfloat16), jnp.ones(shape, jnp.bfloat16))
    assert gradient.dtype == jnp.bfloat16
    assert gradient.tolist() == EXPECTED


def test_flaxs_own_layer_rounds_on_the_way():
    layer = nnx.Linear(3, 5, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert bias_gradient(layer, jnp.ones((PLACES, 3), jnp.bfloat16)).tolist() != EXPECTED


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("dtype", "param_dtype", "x_dtype", "expected"),
    [
        (None, "bfloat16", "bfloat16", "bfloat16"),
        (None, "float32", "bfloat16", "float32"),
        (None, "float32", "int32", "float32"),
        ("bfloat16", "float32", "float32", "bfloat16"),
        ("float16", "float32", "bfloat16", "float16"),
    ],
)
def test_the_dtype_is_flaxs(name, dtype, param_dtype, x_dtype, expected):
    make, shape = LAYERS[name]
    assert make(dtype=dtype, param_dtype=param_dtype)(jnp.ones(shape, x_dtype)).dtype == expected


@pytest.mark.parametrize("name", LAYERS)
def test_without_a_bias(name):
    make, shape = LAYERS[name]
    assert make(bias=False)(jnp.ones(shape)).shape[-1] == 5
