import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flax_attn
from flax_attn import GlobalResponseNorm
from flax_attn.testing import relative_error, tolerance

CLOSE = tolerance("input gradient", "float32")


def made(scale, bias, **options):
    block = GlobalResponseNorm(len(scale), rngs=nnx.Rngs(0), **options)
    block.scale[...], block.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    return block


def test_against_numpy():
    rng = np.random.default_rng(0)
    x, scale, bias = rng.standard_normal((2, 3, 5, 7)), rng.standard_normal(7), rng.standard_normal(7)
    norm = np.sqrt(np.einsum("bhwc,bhwc->bc", x, x))[:, None, None]
    expected = x + scale * x * norm / (norm.mean(-1, keepdims=True) + 1e-6) + bias
    with jax.enable_x64(True):
        out = made(scale, bias, param_dtype="float64")(jnp.asarray(x))
    assert relative_error(np.asarray(out), expected) <= tolerance("output", "float64")


@pytest.mark.parametrize(
    ("x", "param", "out"), [("bfloat16", "bfloat16", "bfloat16"), ("bfloat16", "float32", "float32")]
)
def test_the_output_has_the_type_of_input_and_parameters(x, param, out):
    assert made([1.0, 1], [0, 0], param_dtype=param)(jnp.ones((1, 2, 3, 2), x)).dtype == out


def test_it_starts_as_the_identity():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    block = GlobalResponseNorm(4, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(block(x), x)
    assert {name: array.tolist() for name, array in flax_attn.to_torch(block).items()} == {
        "weight": [0] * 4,
        "bias": [0] * 4,
    }


@pytest.mark.parametrize("dead", [slice(1, 2), slice(None)])
def test_dead_channels_have_finite_gradients(dead):
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4)).at[..., dead].set(0)
    slopes = jax.grad(lambda x: jnp.sum(jnp.square(made([1.0, 2, 3, 4], [0.5] * 4)(x))))(x)
    assert np.isfinite(slopes).all()
    assert np.any(slopes[..., dead])  # the skip connection's


def test_eps_is_added_to_the_mean_norm():
    x = jnp.full((1, 1, 1, 2), 1e-3)
    assert made([1.0, 1], [0, 0], param_dtype="float32")(x)[0, 0, 0, 0] == pytest.approx(
        1e-3 * (1 + 1 / 1.001), rel=CLOSE
    )
    gate = flax_attn.attention_maps(GlobalResponseNorm(2, eps=1e-3, rngs=nnx.Rngs(0)), x)["gate"]
    assert gate.shape == (1, 1, 1, 2)
    np.testing.assert_allclose(gate, 0.5, rtol=CLOSE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim must be a whole number >= 1, got 0"),
        ({"eps": -1e-6}, "eps must be a number of at least 0, got -1e-06"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GlobalResponseNorm(**{"dim": 3, **arguments}, rngs=nnx.Rngs(0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=3), got (2, 5, 3)")):
        GlobalResponseNorm(3, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 3)))
