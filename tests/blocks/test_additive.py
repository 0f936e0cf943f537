import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

from flax_attn.blocks import additive as fx
from flax_attn.testing import relative_error, tolerance

OUTPUT, MAP = tolerance("output", "float64"), tolerance("map", "float64")


def sequences(seed=0):
    """Query (5 tokens of 3), key (7 of 11) and value (7 of 13)."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in [(2, 5, 3), (2, 7, 11), (2, 7, 13)]]


def single():
    return [jnp.asarray(x, jnp.float32) for x in sequences()]


def test_by_hand():
    # Scores 2 log 3 * tanh(0 + key) are 0 and log 3 for keys 0 and artanh(1/2).
    with jax.enable_x64(True):
        block = fx.AdditiveAttention(1, 1, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        for layer, value in ((block.w_q, 5.0), (block.w_k, 1.0), (block.v, 2 * np.log(3))):
            layer.kernel[...] = jnp.full((1, 1), value)
        query, key, value = jnp.zeros((1, 1, 1)), jnp.array([[[0.0], [np.arctanh(0.5)]]]), jnp.array([[[4.0], [8.0]]])
        out, weights = (np.asarray(x) for x in block(query, key, value, need_weights=True))
    assert relative_error(weights, np.array([[[[0.25, 0.75]]]])) <= MAP
    assert relative_error(out, np.array([[[7.0]]])) <= OUTPUT


def test_against_numpy_one_pair_at_a_time():
    query, key, value = sequences()
    mask = np.random.default_rng(1).random((2, 5, 7)) < 0.6
    mask[..., 3] = True
    with jax.enable_x64(True):
        block = fx.AdditiveAttention(3, 11, 17, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out, weights = (np.asarray(x) for x in block(query, key, value, jnp.asarray(mask), need_weights=True))
        w_q, w_k, v = (np.asarray(layer.kernel[...]) for layer in (block.w_q, block.w_k, block.v))
    assert v.shape == (17, 1)
    scores = np.full((2, 5, 7), -np.inf)
    for place in zip(*np.nonzero(mask), strict=True):
        b, i, j = place
        scores[place] = (np.tanh(query[b, i] @ w_q + key[b, j] @ w_k) @ v)[0]
    expected = softmax(scores, -1)
    assert relative_error(weights, expected[:, None]) <= MAP
    assert relative_error(out, expected @ value) <= OUTPUT


def test_no_term_has_a_bias():
    block = fx.AdditiveAttention(3, 11, 17, rngs=nnx.Rngs(0))
    assert [layer.bias for layer in (block.w_q, block.w_k, block.v)] == [None] * 3


def test_mask_zero_hides_a_key():
    query, key, value = single()
    block = fx.AdditiveAttention(3, 11, 17, rngs=nnx.Rngs(0))
    mask = jnp.ones((2, 5, 7), int).at[..., 2].set(0)
    out, weights = block(query, key, value, mask, need_weights=True)
    assert not weights[..., 2].any()
    changed, _ = block(query, key.at[:, 2].add(1), value.at[:, 2].add(1), mask)
    np.testing.assert_array_equal(out, changed)


def test_a_row_without_a_key_is_uniform():
    query, key, value = single()
    block = fx.AdditiveAttention(3, 11, 17, rngs=nnx.Rngs(0))
    out, weights = block(query, key, value, jnp.ones((2, 5, 7), bool).at[1, 3].set(False), need_weights=True)
    assert relative_error(np.asarray(weights[1, 0, 3]), np.full(7, 1 / 7)) <= tolerance("map", "float32")
    assert relative_error(np.asarray(out[1, 3]), np.asarray(value[1].mean(0))) <= tolerance("output", "float32")


def test_without_need_weights_there_are_none():
    block = fx.AdditiveAttention(3, 11, 17, rngs=nnx.Rngs(0))
    assert block(*single())[1] is None
    assert block(*single(), need_weights=True)[1].shape == (2, 1, 5, 7)


@pytest.mark.parametrize("argument", ["query_in", "key_in", "hidden"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_bad_sizes(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be a whole number >= 1, got {value}"):
        fx.AdditiveAttention(**{"query_in": 3, "key_in": 11, "hidden": 17, argument: value}, rngs=nnx.Rngs(0))


GOOD = {"query": (2, 5, 3), "key": (2, 7, 11), "value": (2, 7, 13), "mask": (2, 5, 7)}
MASK = "mask must have shape (b, n_query, n_key)=(2, 5, 7), axes of size 1 allowed, got "


@pytest.mark.parametrize(
    ("argument", "shape", "message"),
    [
        ("query", (2, 5, 11), "query must have shape (b, n_query, query_in=3), got (2, 5, 11)"),
        ("query", (2, 5, 1, 3), "query must have shape (b, n_query, query_in=3), got (2, 5, 1, 3)"),
        ("key", (2, 7, 3), "key must have shape (b=2, n_key, key_in=11), got (2, 7, 3)"),
        ("key", (3, 7, 11), "key must have shape (b=2, n_key, key_in=11), got (3, 7, 11)"),
        ("value", (2, 5, 13), "value must have shape (b=2, n_key=7, d_v), got (2, 5, 13)"),
        ("mask", (2, 7, 5), MASK + "(2, 7, 5)"),
        ("mask", (2, 1, 5, 7), MASK + "(2, 1, 5, 7)"),
    ],
)
def test_bad_shapes(argument, shape, message):
    inputs = {name: np.ones(size, np.float32) for name, size in {**GOOD, argument: shape}.items()}
    block = fx.AdditiveAttention(3, 11, 17, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape(message)):
        block(**inputs)
