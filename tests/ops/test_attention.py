"""Attention as functions of arrays: dtypes of scores, masks that hide, rows without a key."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.extend.core import jaxprs_in_params
from torch.nn import functional as F

from flax_attn.ops import attention
from flax_attn.testing import relative_error, tolerance

NARROW = [jnp.float16, jnp.bfloat16]


def heads(dtype=np.float64, seed=0):
    """Query, key and value for 5 queries, 7 keys, 3 heads."""
    rng = np.random.default_rng(seed)
    shapes = [(2, 5, 3, 11), (2, 7, 3, 11), (2, 7, 3, 13)]
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def test_softmax_of_float64_stays_float64():
    # jax.nn.dot_product_attention takes it in float32 whatever it is given; that would show here.
    with jax.enable_x64(True):
        query, key, value = heads()
        out, weights = attention.dot_product_attention(query, key, value, temperature=2.5)
    assert (out.dtype, weights.dtype) == (jnp.float64, jnp.float64)
    q, k, v = (torch.tensor(np.asarray(x)).transpose(1, 2) for x in (query, key, value))
    expected = F.scaled_dot_product_attention(q, k, v, scale=1 / 2.5).transpose(1, 2).numpy()
    assert relative_error(np.asarray(out), expected) <= tolerance("output", "float64")


def test_the_third_implementation_of_jax_agrees_in_float32():
    query, key, value = heads(np.float32)
    value = value[..., :11]  # all heads are of one size there
    out, _ = attention.dot_product_attention(query, key, value, temperature=2.5, precision="highest")
    with jax.default_matmul_precision("highest"):
        expected = jax.nn.dot_product_attention(query, key, value, scale=1 / 2.5)
    assert relative_error(np.asarray(out), np.asarray(expected)) <= tolerance("output", "float32")


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_floats_are_masked_without_overflow(dtype):
    # float16 cannot hold -1e9: as a score it would be -inf, and a row of them NaN.
    query, key, value = heads(dtype)
    mask = jnp.ones((2, 1, 5, 7), bool).at[0, 0, 0].set(False)
    out, weights = attention.dot_product_attention(query, key, value, temperature=2.5, mask=mask)
    assert (out.dtype, weights.dtype) == (dtype, dtype)
    assert bool(jnp.isfinite(out).all())
    np.testing.assert_array_equal(weights[0, :, 0], np.full((3, 7), jnp.asarray(1 / 7, dtype)))


@pytest.mark.parametrize("dtype", NARROW)
def test_scores_of_narrow_floats_are_float32(dtype):
    assert attention.score_dtype(dtype) == jnp.float32
    # 300 * 300 is more than float16 holds.
    one = jnp.full((1, 1, 1, 1), 300, dtype)
    out, _ = attention.dot_product_attention(
        one, jnp.concatenate([one, -one], 1), jnp.stack([one[0], -one[0]], 1), temperature=1.0
    )
    np.testing.assert_array_equal(out, one)


@pytest.mark.parametrize("mask", [[1, 0, 1], [True, False, True], [2, 0, -1]])
def test_zero_hides_and_anything_else_does_not(mask):
    weights = attention.attention_weights(jnp.zeros((1, 3)), jnp.array([mask]))
    np.testing.assert_array_equal(weights, [[0.5, 0, 0.5]])


def test_a_row_without_a_key_is_uniform_and_its_gradient_finite():
    scores = jnp.array([[3.0, 1.0, -2.0, 0.5]])
    weights, gradient = jax.value_and_grad(lambda s: attention.attention_weights(s, jnp.zeros((1, 4), bool))[0, 0])(
        scores
    )
    np.testing.assert_array_equal(weights, 0.25)
    np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


def test_the_score_of_a_hidden_key_is_minus_1e9():
    # A key whose own score is just that gets the same weight as a hidden one, and one above it all of the weight.
    with jax.enable_x64(True):
        scores = jnp.array([[-1e9, 5.0], [-1e9 + 1e3, 5.0]])
        weights = attention.attention_weights(scores, jnp.array([[1, 0], [1, 0]]))
    np.testing.assert_array_equal(weights, [[0.5, 0.5], [1.0, 0.0]])


def test_weights_fn_changes_the_weights_that_are_applied_and_returned():
    query, key, value = heads(np.float32)
    plain, weights = attention.dot_product_attention(query, key, value, temperature=1.0)
    doubled, twice = attention.dot_product_attention(query, key, value, temperature=1.0, weights_fn=lambda w: 2 * w)
    np.testing.assert_array_equal(twice, 2 * weights)
    np.testing.assert_array_equal(doubled, 2 * plain)


def test_additive_scores_go_through_one_score_function():
    with jax.enable_x64(True):
        query, key = jnp.array([[[0.0]]]), jnp.array([[[0.0], [np.arctanh(0.5)]]])
        out, weights = attention.additive_attention(
            query, key, jnp.array([[[4.0], [8.0]]]), lambda hidden: 2 * np.log(3.0) * hidden
        )
    # Scores 0 and log 3.
    assert relative_error(np.asarray(weights), np.array([[[0.25, 0.75]]])) <= tolerance("map", "float64")
    assert relative_error(np.asarray(out), np.array([[[7.0]]])) <= tolerance("output", "float64")


@pytest.mark.parametrize("shape", [(2, 1, 5, 7), (2, 3, 5, 7), (1, 1, 1, 7), (1, 3, 1, 1)])
def test_masks_that_fit(shape):
    attention.check_mask(jnp.ones(shape, bool), jnp.ones(shape), (2, 3, 5, 7), "b, heads, n_query, n_key")


@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7), (2, 1, 7, 5), (3, 1, 5, 7), (2, 1, 5, 7, 1), ()])
@pytest.mark.parametrize("argument", ["mask", "bias"])
def test_masks_that_do_not(argument, shape):
    expected = f"{argument} must have shape (b, heads, n_query, n_key)=(2, 3, 5, 7), axes of size 1 allowed, got "
    with pytest.raises(ValueError, match=re.escape(f"{expected}{shape}")):
        attention.check_mask(
            **{"mask": None, "bias": None, argument: jnp.ones(shape)},
            shape=(2, 3, 5, 7),
            layout="b, heads, n_query, n_key",
        )


ADDED = [[0.0, -np.inf, 0.0], [0.0, -1e9, 0.0], [0.0, np.nan, 0.0], [1.0, 0.0, 1.0]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
@pytest.mark.parametrize("values", ADDED)
def test_a_mask_of_floats_may_hide_or_be_added_and_is_refused(values, dtype):
    # PyTorch's generate_square_subsequent_mask, taken as "0 hides", would show each query the future alone.
    mask = jnp.array([values]).astype(dtype)
    one, head = jnp.ones((1, 3, 2)), jnp.ones((1, 3, 1, 2))
    attend = jax.jit(partial(attention.dot_product_attention, temperature=1.0))
    message = rf"mask must be of booleans or integers, 0 hides a key, got {dtype}: pass mask.astype\(bool\) .* bias="
    with pytest.raises(ValueError, match=message):
        attention.attention_weights(jnp.zeros((1, 3)), mask)
    with pytest.raises(ValueError, match=message):
        attend(head[:, :1], head, head, mask=mask[None, None])
    with pytest.raises(ValueError, match=message):
        attention.additive_attention(one[:, :1], one, one, lambda hidden: hidden[..., :1], mask=mask[None])


@pytest.mark.parametrize("dtype", [bool, "int32", "uint8"])
def test_a_bias_of_truths_is_a_mask_and_refused(dtype):
    with pytest.raises(ValueError, match=rf"bias must be of floats, added .*, got {jnp.dtype(dtype)}: pass mask="):
        attention.attention_weights(jnp.zeros((1, 3)), None, jnp.ones((1, 3), dtype))


@pytest.mark.parametrize("low", [-np.inf, -1e9])
def test_an_additive_mask_hides_as_a_bias(low):
    scores = jnp.array([[2.0, 1.0, 3.0]])
    weights = attention.attention_weights(scores, None, jnp.array([[0.0, low, 0.0]]))
    expected = attention.attention_weights(scores, jnp.array([[True, False, True]]))
    np.testing.assert_array_equal(weights, expected)


def test_a_mask_goes_before_a_bias():
    weights = attention.attention_weights(jnp.zeros((1, 3)), jnp.array([[1, 0, 1]]), jnp.array([[0.0, 1e9, np.log(3)]]))
    assert relative_error(np.asarray(weights), np.array([[0.25, 0, 0.75]])) <= tolerance("map", "float32")


BLOCK = attention.QUERY_BLOCK


@pytest.mark.parametrize(
    ("n_query", "mask", "bias"),
    # Two blocks and a remainder, and three blocks.
    [
        (2 * BLOCK + 3, None, None),
        (2 * BLOCK + 3, (2, 1, "n_query", 7), (1, 1, 1, 7)),
        (3 * BLOCK, (2, 1, "n_query", 7), None),
        (131, (1, 3, 1, 7), (1, 3, "n_query", 7)),
        (BLOCK + 1, None, (2, 3, "n_query", 7)),
    ],
    ids=str,
)
def test_queries_in_blocks_are_queries_at_once_with_their_gradients(n_query, mask, bias):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in [(2, n_query, 3, 11), (2, 7, 3, 11), (2, 7, 3, 5)]]
    cotangent = rng.standard_normal((2, n_query, 3, 5))
    mask, bias = (
        None if sizes is None else rng.standard_normal([n_query if size == "n_query" else size for size in sizes])
        for sizes in (mask, bias)
    )
    keep = None if mask is None else mask < 0.3

    def attend(need_weights):
        def loss(arrays):
            arrays, bias = arrays[:3], [*arrays, None][3]
            out, weights = attention.dot_product_attention(
                *arrays, temperature=2.5, mask=keep, bias=bias, need_weights=need_weights
            )
            assert (weights is not None) == need_weights
            return jnp.sum(out * cotangent), out

        gradients, out = jax.jit(jax.grad(loss, has_aux=True))(
            [jnp.asarray(x) for x in (*arrays, bias) if x is not None]
        )
        return [np.asarray(x) for x in (out, *gradients)]

    with jax.enable_x64(True):
        whole, parts = attend(need_weights=True), attend(need_weights=False)
    for quantity, got, expected in zip(["output", *["input gradient"] * (len(whole) - 1)], parts, whole, strict=True):
        assert relative_error(got, expected) <= tolerance(quantity, "float64")


@pytest.mark.parametrize("n_query", [1, BLOCK, BLOCK + 1])
def test_up_to_a_block_of_queries_is_handled_at_once(n_query):
    # More than that go through blocks, whose weights the backward pass computes again.
    query, key = jnp.ones((1, n_query, 1, 2)), jnp.ones((1, 3, 1, 2))

    def attend(query, key):
        return attention.dot_product_attention(query, key, key, temperature=1.0, need_weights=False)[0]

    assert ("remat" in str(jax.make_jaxpr(attend)(query, key))) == (n_query > BLOCK)


def test_weights_fn_is_applied_to_many_queries_too():
    _, key, value = heads(np.float32)
    query = jnp.asarray(np.random.default_rng(0).standard_normal((2, BLOCK + 1, 3, 11)), np.float32)
    plain, _ = attention.dot_product_attention(query, key, value, temperature=1.0)
    doubled, weights = attention.dot_product_attention(
        query, key, value, temperature=1.0, weights_fn=lambda w: 2 * w, need_weights=False
    )
    np.testing.assert_array_equal(doubled, 2 * plain)
    assert weights is None


def test_arrays_may_be_named_and_options_have_to_be():
    query, key, value = heads(np.float32)
    named, _ = attention.dot_product_attention(value=value, key=key, query=query, temperature=2.0)
    np.testing.assert_array_equal(named, attention.dot_product_attention(query, key, value, temperature=2.0)[0])
    with pytest.raises(TypeError, match="positional"):
        attention.dot_product_attention(query, key, value, 2.0)
    one = jnp.ones((1, 1, 1))
    named, _ = attention.additive_attention(score_fn=lambda hidden: hidden, value=3 * one, key=one, query=one)
    np.testing.assert_array_equal(named, 3 * one)
    with pytest.raises(TypeError, match="positional"):
        attention.additive_attention(one, one, one, lambda hidden: hidden, None)


def largest_array(jaxpr):
    inner = [getattr(sub, "jaxpr", sub) for equation in jaxpr.eqns for sub in jaxprs_in_params(equation.params)]
    sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
    return max([0, *sizes, *map(largest_array, inner)])


@pytest.mark.parametrize("need_weights", [False, True])
def test_without_need_weights_there_is_no_array_of_all_queries_and_keys(need_weights):
    n = 5 * BLOCK  # whatever is kept of each of the five blocks is one array in the end
    query, key = jnp.ones((2, n, 3, 2)), jnp.ones((2, 71, 3, 2))

    def loss(query, key):
        out, _ = attention.dot_product_attention(query, key, key, temperature=1.0, need_weights=need_weights)
        return jnp.sum(jnp.sin(out))

    largest = largest_array(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(query, key).jaxpr)
    assert (largest >= 2 * 3 * n * 71) == need_weights
