import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flax_attn.blocks import multi_head as fx
from flax_attn.testing import relative_error, tolerance

OUTPUT, MAP = tolerance("output", "float64"), tolerance("map", "float64")
BARE = {"dropout": 0.0, "residual": False, "norm": False}


def tokens(d_model=12, seed=0):
    """Query (5 tokens), key and value (7 tokens)."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((2, n, d_model)) for n in (5, 7, 7)]


def double(*arguments, **options):
    """A block in float64; the scale and bias of its norm moved off 1 and 0."""
    block = fx.MultiHeadAttention(*arguments, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    if block.layer_norm is not None:
        rng = np.random.default_rng(9)
        block.layer_norm.scale[...] = rng.uniform(0.5, 1.5, block.d_model)
        block.layer_norm.bias[...] = rng.standard_normal(block.d_model)
    return block


def test_without_residual_and_norm_it_is_torchs_multi_head_attention():
    query, key, value = tokens()
    mask = np.random.default_rng(1).random((2, 5, 7)) < 0.6
    mask[..., 3] = True  # every query sees a key: torch gives NaN otherwise
    with jax.enable_x64(True):
        block = double(3, 12, 4, 4, **BARE)
        out, weights = (np.asarray(x) for x in block(query, key, value, jnp.asarray(mask), need_weights=True))
        projections = [np.asarray(layer.kernel[...]).T for layer in (block.w_qs, block.w_ks, block.w_vs)]
        last = np.array(block.fc.kernel[...]).T
    third = torch.nn.MultiheadAttention(12, 3, bias=False, batch_first=True, dtype=torch.float64)
    third.load_state_dict(
        {
            "in_proj_weight": torch.from_numpy(np.concatenate(projections)),
            "out_proj.weight": torch.from_numpy(last),
        }
    )
    hidden = torch.from_numpy(~mask).repeat_interleave(3, 0)
    inputs = [torch.from_numpy(x) for x in (query, key, value)]
    expected, expected_weights = third(*inputs, attn_mask=hidden, average_attn_weights=False)
    assert relative_error(out, expected.detach().numpy()) <= OUTPUT
    assert relative_error(weights, expected_weights.detach().numpy()) <= MAP


@pytest.mark.filterwarnings("ignore:Using .Module.sow:DeprecationWarning")
def test_without_residual_and_norm_it_is_flaxs_multi_head_attention():
    query, key, value = tokens()
    mask = np.random.default_rng(1).random((2, 5, 7)) < 0.6
    with jax.enable_x64(True):
        block = double(3, 12, 4, 4, **BARE)
        options = {"use_bias": False, "decode": False, "param_dtype": jnp.float64, "rngs": nnx.Rngs(1)}
        third = nnx.MultiHeadAttention(3, 12, **options)
        for theirs, ours in ((third.query, block.w_qs), (third.key, block.w_ks), (third.value, block.w_vs)):
            theirs.kernel[...] = ours.kernel[...].reshape(12, 3, 4)
        third.out.kernel[...] = block.fc.kernel[...].reshape(3, 4, 12)
        inputs = [jnp.asarray(x) for x in (query, key, value)]
        out = np.asarray(block(*inputs, jnp.asarray(mask))[0])
        # Where nobody asks for the weights, Flax takes the softmax in float32.
        expected = np.asarray(third(*inputs, mask=jnp.asarray(mask)[:, None], sow_weights=True))
    assert relative_error(out, expected) <= OUTPUT


def test_with_residual_norm_and_d_k_other_than_d_v_against_numpy():
    query, key, value = tokens(13)
    with jax.enable_x64(True):
        block = double(3, 13, 5, 11)
        block.eval()
        out, weights = (np.asarray(x) for x in block(query, key, value, need_weights=True))
        kernels = [np.asarray(layer.kernel[...]) for layer in (block.w_qs, block.w_ks, block.w_vs, block.fc)]
        scale, bias = np.asarray(block.layer_norm.scale[...]), np.asarray(block.layer_norm.bias[...])
    q, k, v = (x @ kernel for x, kernel in zip((query, key, value), kernels, strict=False))
    results, expected_weights = [], []
    for head in range(3):
        of_k, of_v = slice(5 * head, 5 * head + 5), slice(11 * head, 11 * head + 11)
        e = np.exp(q[..., of_k] @ k[..., of_k].transpose(0, 2, 1) / np.sqrt(5))
        expected_weights.append(e / e.sum(-1, keepdims=True))
        results.append(expected_weights[-1] @ v[..., of_v])
    z = np.concatenate(results, -1) @ kernels[3] + query
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6)
    assert relative_error(out, z * scale + bias) <= OUTPUT
    assert relative_error(weights, np.stack(expected_weights, 1)) <= MAP


def without_attention(**options):
    """A block whose last projection is zero: what remains is residual and norm."""
    block = fx.MultiHeadAttention(2, 4, 3, 5, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    block.fc.kernel[...] = jnp.zeros((10, 4))
    block.eval()
    return block


def test_the_residual_adds_the_query():
    query, key, value = tokens(4)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(without_attention(norm=False)(query, key, value)[0], query)
        np.testing.assert_array_equal(without_attention(norm=False, residual=False)(query, key, value)[0], 0 * query)


def test_the_norm_has_eps_1e_6():
    # With a variance of 1e-6 too, that is 1/sqrt(2); PyTorch's default of 1e-5 would give 0.30.
    query = np.array([[[1e-3, -1e-3, 1e-3, -1e-3]]])
    with jax.enable_x64(True):
        out = np.asarray(without_attention()(query, query, query)[0])
    assert relative_error(out, np.array([[[1, -1, 1, -1]]]) / np.sqrt(2)) <= OUTPUT


def test_the_projections_have_no_bias():
    block = fx.MultiHeadAttention(2, 4, 3, 5, rngs=nnx.Rngs(0))
    assert [layer.bias for layer in (block.w_qs, block.w_ks, block.w_vs, block.fc)] == [None] * 4


def test_the_heads_share_the_mask():
    mask = np.ones((2, 5, 7), int)
    mask[0, 3, [1, 6]] = 0
    block = fx.MultiHeadAttention(3, 12, 4, 4, rngs=nnx.Rngs(0))
    _, weights = block(*(jnp.asarray(x, jnp.float32) for x in tokens()), jnp.asarray(mask), need_weights=True)
    np.testing.assert_array_equal(weights != 0, np.stack([mask] * 3, 1))


def test_a_row_without_a_key_is_uniform():
    mask = jnp.ones((2, 5, 7), bool).at[1, 2].set(False)
    with jax.enable_x64(True):
        _, weights = double(3, 12, 4, 4)(*tokens(), mask, need_weights=True)
    assert relative_error(np.asarray(weights[1, :, 2]), np.full((3, 7), 1 / 7)) <= MAP


def test_dropout_acts_on_the_output_and_not_on_the_weights():
    with jax.enable_x64(True):
        block = double(3, 12, 4, 4, dropout=0.5, residual=False, norm=False)
        out, weights = (np.asarray(x) for x in block(*tokens(), need_weights=True))
        block.eval()
        whole = np.asarray(block(*tokens())[0])
    assert relative_error(weights.sum(-1), np.ones((2, 3, 5))) <= MAP
    dropped = out == 0
    assert dropped.any()
    assert relative_error(out, np.where(dropped, 0, 2 * whole)) <= OUTPUT


def test_dropout_is_active_while_training_and_only_then():
    block = fx.MultiHeadAttention(3, 12, 4, 4, rngs=nnx.Rngs(0))
    inputs = [jnp.asarray(x, jnp.float32) for x in tokens()]
    assert not np.array_equal(block(*inputs)[0], block(*inputs)[0])
    block.eval()
    np.testing.assert_array_equal(block(*inputs)[0], block(*inputs)[0])


def test_without_need_weights_there_are_none():
    block = fx.MultiHeadAttention(3, 12, 4, 4, rngs=nnx.Rngs(0))
    assert block(*(jnp.asarray(x, jnp.float32) for x in tokens()))[1] is None


def test_shapes_of_the_tutorials_example():
    # An image of 24 x 24 pixels and 256 channels, 8 heads, d_k 256, d_v 512.
    def call(x):
        return fx.MultiHeadAttention(8, 256, 256, 512, rngs=nnx.Rngs(0))(x, x, x, need_weights=True)

    out, weights = jax.eval_shape(call, jnp.ones((128, 576, 256), jnp.bfloat16))
    assert (out.shape, weights.shape) == ((128, 576, 256), (128, 8, 576, 576))


@pytest.mark.parametrize("argument", ["n_head", "d_model", "d_k", "d_v"])
@pytest.mark.parametrize("value", [0, -3, 2.0, None, True])
def test_bad_sizes(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be a whole number >= 1, got {value!r}"):
        fx.MultiHeadAttention(**{"n_head": 2, "d_model": 12, "d_k": 5, "d_v": 7, argument: value}, rngs=nnx.Rngs(0))


def test_bad_dropout():
    with pytest.raises(ValueError, match=re.escape("dropout must lie in [0, 1], got 2")):
        fx.MultiHeadAttention(2, 12, 5, 7, 2, rngs=nnx.Rngs(0))


GOOD = {"query": (2, 5, 12), "key": (2, 7, 12), "value": (2, 7, 12), "mask": (2, 5, 7)}
MASK = "mask must have shape (b, n_query, n_key)=(2, 5, 7), axes of size 1 allowed, got "


@pytest.mark.parametrize(
    ("argument", "shape", "message"),
    [
        ("query", (5, 12), "query must have shape (b, n_query, d_model=12), got (5, 12)"),
        ("query", (2, 5, 3, 12), "query must have shape (b, n_query, d_model=12), got (2, 5, 3, 12)"),
        ("query", (2, 5, 11), "query must have shape (b, n_query, d_model=12), got (2, 5, 11)"),
        ("key", (1, 7, 12), "key must have shape (b=2, n_key, d_model=12), got (1, 7, 12)"),
        ("key", (2, 7, 13), "key must have shape (b=2, n_key, d_model=12), got (2, 7, 13)"),
        ("value", (2, 5, 12), "value must have shape (b=2, n_key=7, d_model=12), got (2, 5, 12)"),
        ("mask", (2, 3, 5, 7), MASK + "(2, 3, 5, 7)"),
        ("mask", (2, 7, 5), MASK + "(2, 7, 5)"),
        ("mask", (5, 7), MASK + "(5, 7)"),
    ],
)
def test_bad_shapes(argument, shape, message):
    inputs = {name: np.ones(size, np.float32) for name, size in {**GOOD, argument: shape}.items()}
    block = fx.MultiHeadAttention(3, 12, 4, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape(message)):
        block(**inputs)
