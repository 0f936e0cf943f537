import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn import ClassSpecificResidualAttention, MultiHeadResidualAttention
from flax_attn.testing import relative_error, tolerance

CLOSE = tolerance("input gradient", "float32")


def logits(x, weight, temperature, lam, *, normalize=True):
    """The definition, class by class."""
    pixels = x.reshape(len(x), -1, x.shape[-1])
    columns = []
    for one in weight[..., 0, 0]:
        scores = pixels @ one / (np.linalg.norm(one) if normalize else 1)
        shares = softmax(temperature * scores, axis=1)
        attended = scores.max(1) if temperature == 99 else np.sum(shares * scores, axis=1)
        columns.append(scores.mean(1) + lam * attended)
    return np.stack(columns, -1)


@pytest.mark.parametrize(("temperature", "normalize"), [(1, True), (0.5, False), (99, True), (99, False)])
def test_against_numpy(temperature, normalize):
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7))
    with jax.enable_x64(True):
        block = ClassSpecificResidualAttention(
            7, 4, temperature, 0.3, normalize, param_dtype="float64", rngs=nnx.Rngs(0)
        )
        out, weights = np.asarray(block(jnp.asarray(x))), flax_attn.to_torch(block)
    expected = logits(x, weights["head.weight"], temperature, 0.3, normalize=normalize)
    assert relative_error(out, expected) <= tolerance("output", "float64")


TEMPERATURES = {1: [1], 2: [1, 99], 4: [1, 2, 4, 99], 6: [1, 2, 3, 4, 5, 99], 8: [1, 2, 3, 4, 5, 6, 7, 99]}


@pytest.mark.oracle("MultiHeadResidualAttention")
@pytest.mark.parametrize("num_heads", TEMPERATURES)
def test_heads_are_added(num_heads):
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7))
    with jax.enable_x64(True):
        block = MultiHeadResidualAttention(num_heads, 0.3, 7, 4, param_dtype="float64", rngs=nnx.Rngs(0))
        out, weights = np.asarray(block(jnp.asarray(x))), flax_attn.to_torch(block)
    expected = sum(
        logits(x, weights[f"multi_head.{i}.head.weight"], temperature, 0.3)
        for i, temperature in enumerate(TEMPERATURES[num_heads])
    )
    assert len(weights) == num_heads
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_the_maximum_is_the_limit_of_high_temperatures():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 7))
    maximum = ClassSpecificResidualAttention(7, 4, 99, rngs=nnx.Rngs(0))(x)
    np.testing.assert_allclose(
        ClassSpecificResidualAttention(7, 4, 1e4, rngs=nnx.Rngs(0))(x),
        maximum,
        rtol=CLOSE,
    )


@pytest.mark.parametrize("temperature", [2, 99])
def test_weights_are_of_the_pixels(temperature):
    block = ClassSpecificResidualAttention(7, 4, temperature, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 7))
    weights = flax_attn.attention_maps(block, x)["weights"]
    assert weights.shape == (2, 1, 4, 15)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=CLOSE)
    norm = np.linalg.norm(block.head.kernel[0, 0], axis=0)
    scores = (block.head(x) / norm).reshape(2, 15, 4)
    expected = scores.mean(1) + 0.1 * np.einsum("bkn,bnk->bk", weights[:, 0], scores)
    np.testing.assert_allclose(block(x), expected, rtol=CLOSE, atol=CLOSE)


def test_the_first_of_equal_maxima_gets_the_gradient():
    block = ClassSpecificResidualAttention(1, 1, 99, 1.0, normalize=False, rngs=nnx.Rngs(0))
    block.head.kernel[...] = jnp.ones((1, 1, 1, 1))
    slopes = jax.grad(lambda x: block(x)[0, 0])(jnp.array([3.0, 1, 3, 0]).reshape(1, 2, 2, 1))
    np.testing.assert_allclose(slopes.ravel(), [1.25, 0.25, 0.25, 0.25], rtol=CLOSE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_dim": 0}, "input_dim must be a whole number >= 1, got 0"),
        ({"num_classes": 0}, "num_classes must be a whole number >= 1, got 0"),
        ({"temperature": 0}, "temperature must be a finite number above 0, got 0"),
        ({"temperature": -1}, "temperature must be a finite number above 0, got -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ClassSpecificResidualAttention(**{"input_dim": 3, "num_classes": 2, **arguments}, rngs=nnx.Rngs(0))


def test_a_number_of_heads_without_temperatures():
    with pytest.raises(ValueError, match="num_heads must be one of 1, 2, 4, 6, 8, got 3"):
        MultiHeadResidualAttention(3, 0.1, 5, 7, rngs=nnx.Rngs(0))


def test_bad_shapes():
    for block in (
        ClassSpecificResidualAttention(3, 2, rngs=nnx.Rngs(0)),
        MultiHeadResidualAttention(2, 0.1, 3, 2, rngs=nnx.Rngs(0)),
    ):
        with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=3), got (2, 5, 7, 4)")):
            block(jnp.ones((2, 5, 7, 4)))
