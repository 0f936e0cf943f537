import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

import flax_attn
from flax_attn.blocks import dot_product as fx
from flax_attn.testing import relative_error, tolerance

OUTPUT, MAP = tolerance("output", "float64"), tolerance("map", "float64")


def heads(seed=0, dtype=np.float64):
    """Query, key and value for 5 queries, 7 keys, 3 heads."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in [(2, 5, 3, 11), (2, 7, 3, 11), (2, 7, 3, 13)]]


def attend(*inputs, temperature=2.5, **options):
    """Output and weights in float64."""
    with jax.enable_x64(True):
        block = fx.ScaledDotProductAttention(temperature, **options, rngs=nnx.Rngs(0))
        arrays = [None if x is None else jnp.asarray(x) for x in inputs]
        return [np.asarray(result) for result in block(*arrays, need_weights=True)]


def test_by_hand():
    # Scores 0 and log 9 / 2 = log 3 make weights 1/4 and 3/4.
    query, key, value = (np.array(x).reshape(1, -1, 1, 1) for x in ([1.0], [0.0, math.log(9)], [4.0, 8.0]))
    out, weights = attend(query, key, value, temperature=2.0)
    assert relative_error(weights, np.array([[[[0.25, 0.75]]]])) <= MAP
    assert relative_error(out, np.array([[[[7.0]]]])) <= OUTPUT


@pytest.mark.parametrize("temperature", [1.0, 2.5, 32.0])
def test_is_torchs_scaled_dot_product_attention(temperature):
    query, key, value = heads()
    mask = np.random.default_rng(1).random((2, 3, 5, 7)) < 0.6
    mask[..., 3] = True  # every query sees a key: torch gives NaN otherwise
    out, _ = attend(query, key, value, mask, temperature=temperature)
    q, k, v = (torch.from_numpy(x).transpose(1, 2) for x in (query, key, value))
    expected = F.scaled_dot_product_attention(q, k, v, torch.from_numpy(mask), scale=1 / temperature)
    assert relative_error(out, expected.transpose(1, 2).numpy()) <= OUTPUT


def test_weights_are_a_distribution_over_keys():
    _, weights = attend(*heads())
    assert weights.shape == (2, 3, 5, 7)
    assert relative_error(weights.sum(-1), np.ones((2, 3, 5))) <= MAP


@pytest.mark.parametrize("dtype", [bool, int, np.uint8])
def test_mask_zero_hides_a_key(dtype):
    query, key, value = heads()
    mask = np.ones((2, 1, 5, 7), dtype)
    mask[..., 2] = 0
    out, weights = attend(query, key, value, mask)
    assert not weights[..., 2].any()
    others = [0, 1, 3, 4, 5, 6]
    assert relative_error(out, attend(query, key[:, others], value[:, others])[0]) <= OUTPUT


def test_a_mask_of_one_head_counts_for_all_and_one_per_head_for_its_own():
    mask = np.ones((2, 3, 5, 7), bool)
    mask[:, 1, :, 2] = 0
    _, weights = attend(*heads(), mask)
    assert not weights[:, 1, :, 2].any()
    assert weights[:, [0, 2], :, 2].all()


def test_a_row_without_a_key_is_uniform():
    query, key, value = heads()
    mask = np.ones((2, 1, 5, 7), bool)
    mask[0, 0, 3] = 0
    out, weights = attend(query, key, value, mask)
    assert relative_error(weights[0, :, 3], np.full((3, 7), 1 / 7)) <= MAP
    assert relative_error(out[0, 3], value[0].mean(0)) <= OUTPUT


def test_dropout_acts_on_the_weights_and_they_are_returned_as_applied():
    query, key, value = heads()
    _, kept = attend(query, key, value)
    out, weights = attend(query, key, value, attn_dropout=0.5)
    dropped = weights == 0
    assert dropped.any()
    assert relative_error(weights, np.where(dropped, 0, 2 * kept)) <= MAP
    assert relative_error(out, np.einsum("bhqk,bkhd->bqhd", weights, value)) <= OUTPUT


def test_eval_mode_drops_nothing():
    inputs = heads(dtype=np.float32)
    block = fx.ScaledDotProductAttention(2.5, 0.5, rngs=nnx.Rngs(0))
    block.eval()
    np.testing.assert_array_equal(block(*inputs)[0], fx.ScaledDotProductAttention(2.5, rngs=nnx.Rngs(1))(*inputs)[0])


def test_without_need_weights_there_are_none():
    block = fx.ScaledDotProductAttention(2.5, rngs=nnx.Rngs(0))
    assert block(*heads(dtype=np.float32))[1] is None


def test_the_map_on_request_is_the_weights():
    inputs = heads(dtype=np.float32)
    block = fx.ScaledDotProductAttention(2.5, rngs=nnx.Rngs(0))
    given = flax_attn.attention_maps(block, *inputs)
    assert given.keys() == {"weights"}
    np.testing.assert_array_equal(given["weights"], block(*inputs, need_weights=True)[1])


def test_shapes_of_the_tutorials_example():
    # It passes the sequence length as temperature. (128, 1, 32, 256) there, heads second.
    block = fx.ScaledDotProductAttention(32, rngs=nnx.Rngs(0))
    query, key = jnp.ones((128, 32, 1, 256)), jnp.ones((128, 16, 1, 256))
    out, weights = jax.eval_shape(lambda *inputs: block(*inputs, need_weights=True), query, key, key)
    assert (out.shape, weights.shape) == ((128, 32, 1, 256), (128, 1, 32, 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "temperature must be a finite number other than 0, got 0"),
        ((0.0,), "temperature must be a finite number other than 0, got 0.0"),
        ((1.0, -0.5), "attn_dropout must lie in [0, 1], got -0.5"),
        ((1.0, 1.5), "attn_dropout must lie in [0, 1], got 1.5"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fx.ScaledDotProductAttention(*arguments, rngs=nnx.Rngs(0))


GOOD = {"query": (2, 5, 3, 11), "key": (2, 7, 3, 11), "value": (2, 7, 3, 13), "mask": (2, 1, 5, 7)}
MASK = "mask must have shape (b, heads, n_query, n_key)=(2, 3, 5, 7), axes of size 1 allowed, got "


@pytest.mark.parametrize(
    ("argument", "shape", "message"),
    [
        ("query", (2, 5, 11), "query must have shape (b, n_query, heads, d_k), got (2, 5, 11)"),
        ("key", (2, 7, 3, 13), "key must have shape (b=2, n_key, heads=3, d_k=11), got (2, 7, 3, 13)"),
        ("key", (2, 7, 2, 11), "key must have shape (b=2, n_key, heads=3, d_k=11), got (2, 7, 2, 11)"),
        ("key", (1, 7, 3, 11), "key must have shape (b=2, n_key, heads=3, d_k=11), got (1, 7, 3, 11)"),
        ("value", (2, 5, 3, 13), "value must have shape (b=2, n_key=7, heads=3, d_v), got (2, 5, 3, 13)"),
        ("value", (2, 7, 13), "value must have shape (b=2, n_key=7, heads=3, d_v), got (2, 7, 13)"),
        ("mask", (5, 7), MASK + "(5, 7)"),
        ("mask", (2, 1, 7, 5), MASK + "(2, 1, 7, 5)"),
        ("mask", (2, 2, 5, 7), MASK + "(2, 2, 5, 7)"),
    ],
)
def test_bad_shapes(argument, shape, message):
    inputs = {name: np.ones(size, np.float32) for name, size in {**GOOD, argument: shape}.items()}
    block = fx.ScaledDotProductAttention(2.5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape(message)):
        block(**inputs)
