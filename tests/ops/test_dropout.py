"""Dropout: what the mask depends on, how often it drops, how the rest is scaled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binomtest

from flax_attn import ops
from flax_attn.ops.dropout import high_word, keep_at
from flax_attn.testing.tolerances import P_VALUE

KEY = jax.random.key(7)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drops_at_the_rate(rate):
    keep = ops.keep_mask(KEY, rate, (101, 103))
    assert binomtest(int(np.sum(~np.asarray(keep))), keep.size, rate).pvalue > P_VALUE


def test_the_test_of_the_rate_tells_neighbouring_rates_apart():
    keep = ops.keep_mask(KEY, 0.1, (101, 103))
    assert binomtest(int(np.sum(np.asarray(keep))), keep.size, 0.1).pvalue < P_VALUE
    assert binomtest(int(np.sum(~np.asarray(keep))), keep.size, 0.13).pvalue < P_VALUE


def test_the_mask_depends_on_the_key():
    np.testing.assert_array_equal(ops.keep_mask(KEY, 0.5, (5, 7)), ops.keep_mask(KEY, 0.5, (5, 7)))
    assert not np.array_equal(ops.keep_mask(KEY, 0.5, (5, 7)), ops.keep_mask(jax.random.key(8), 0.5, (5, 7)))


def test_the_mask_is_the_same_in_64_bit_mode():
    narrow = np.asarray(ops.keep_mask(KEY, 0.3, (31, 37)))
    with jax.enable_x64(True):
        wide = np.asarray(ops.keep_mask(KEY, 0.3, (31, 37)))
    np.testing.assert_array_equal(narrow, wide)


def test_an_element_of_the_mask_depends_on_its_position_alone():
    # Leading axes more or fewer change no element that both have: a computation may be cut into blocks.
    whole = ops.keep_mask(KEY, 0.4, (6, 5, 7))
    np.testing.assert_array_equal(ops.keep_mask(KEY, 0.4, (2, 5, 7)), whole[:2])
    np.testing.assert_array_equal(ops.keep_mask(KEY, 0.4, (210,)), whole.ravel())


def test_the_mask_is_the_same_under_jit_and_vmap():
    expected = ops.keep_mask(KEY, 0.4, (5, 7))
    compiled = jax.jit(ops.keep_mask, static_argnums=(1, 2))(KEY, 0.4, (5, 7))
    np.testing.assert_array_equal(compiled, expected)
    keys = jnp.stack([KEY, jax.random.key(8)])
    np.testing.assert_array_equal(jax.vmap(lambda key: ops.keep_mask(key, 0.4, (5, 7)))(keys)[0], expected)


def test_keeps_and_scales():
    x = jnp.array([1.0, -2.0, 3.0, 4.0])
    np.testing.assert_array_equal(ops.dropout(x, jnp.array([True, True, False, True]), 0.75), [4, -8, 0, 16])


def test_a_dropped_nan_is_zero():
    x = jnp.array([np.nan, np.inf, 2.0])
    np.testing.assert_array_equal(ops.dropout(x, jnp.array([False, False, True]), 0.5), [0, 0, 4])


def test_rate_one_gives_zeros_and_finite_gradients():
    x = jnp.array([1.0, -2.0, 3.0])
    keep = ops.keep_mask(KEY, 1.0, (3,))
    np.testing.assert_array_equal(keep, [False, False, False])
    np.testing.assert_array_equal(ops.dropout(x, keep, 1.0), np.zeros(3))
    np.testing.assert_array_equal(jax.grad(lambda x: ops.dropout(x, keep, 1.0).sum())(x), np.zeros(3))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_keeps_the_dtype(dtype):
    assert ops.dropout(jnp.ones(3, dtype), jnp.ones(3, bool), 0.1).dtype == dtype


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1 / 3, 0.999])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (11, 1), (1, 2, 70_001)])
def test_single_elements_are_those_of_the_whole_mask(shape, rate):
    *rows, columns = shape
    row = np.arange(np.prod(rows), dtype=np.uint32).reshape(*rows, 1)
    column = np.arange(columns, dtype=np.uint32)
    with jax.enable_x64(rate == 0.5):
        got = keep_at(jax.random.key_data(KEY), rate, jnp.asarray(row), jnp.asarray(column), columns)
        np.testing.assert_array_equal(got, ops.keep_mask(KEY, rate, shape))


@pytest.mark.parametrize("columns", [3, 2**16 - 1, 2**16, 2**16 + 3, 2**31 - 5])
def test_places_beyond_32_bits_differ(columns):
    """Rows of which the first 2**32 places hold many: the bits of a place must not come back after as many."""
    row = jnp.asarray(np.random.default_rng(0).integers(0, 2**32, 1000), jnp.uint32)
    exact = np.asarray(row).astype(object) * columns
    np.testing.assert_array_equal(high_word(row, columns), (exact >> 32).astype(np.uint32))
