import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax.extend.core import jaxprs_in_params
from torch.nn import functional as F

import flax_attn
from flax_attn.blocks import conv_multi_head as fx
from flax_attn.testing import relative_error, tolerance

OUTPUT, MAP = tolerance("output", "float64"), tolerance("map", "float64")


def double(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def single(*shape, seed=0):
    return jnp.asarray(double(*shape, seed=seed), jnp.float32)


def conv1x1(layer, x):
    """A 1x1 convolution is a product with its kernel (1, in, out)."""
    return x @ np.asarray(layer.kernel[...])[0] + np.asarray(layer.bias[...])


def third_attention(head, query, context):
    q, k, v = (
        torch.from_numpy(conv1x1(layer, x))
        for layer, x in ((head.query, query), (head.key, context), (head.value, context))
    )
    return F.scaled_dot_product_attention(q, k, v).numpy()


def test_one_head_is_torchs_attention_of_projected_pixels():
    query, context = double(2, 3, 7, 5), double(2, 11, 13, seed=1)
    with jax.enable_x64(True):
        block = fx.ConvAttention(13, 5, 7, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out, weights = (np.asarray(x) for x in block(query, context, need_weights=True))
        expected = third_attention(block, query.reshape(2, 21, 5), context)
        scores = conv1x1(block.query, query.reshape(2, 21, 5)) @ conv1x1(block.key, context).transpose(0, 2, 1)
    assert relative_error(out, expected.reshape(2, 3, 7, 3)) <= OUTPUT
    # Rows are queries: (b, 1, n_query, n_key).
    e = np.exp(scores / np.sqrt(7))
    assert relative_error(weights, (e / e.sum(-1, keepdims=True))[:, None]) <= MAP


def test_the_block_against_numpy_and_torchs_attention():
    query, context = double(2, 3, 7, 5), double(2, 3, 7, 5, seed=1)
    with jax.enable_x64(True):
        block = fx.ConvMultiHeadAttention(5, 5, 11, 13, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        for seed, norm in enumerate((block.norm1, block.norm2)):
            norm.scale[...], norm.bias[...] = 1 + 0.3 * double(5, seed=seed), double(5, seed=seed + 2)
        out = np.asarray(block(query, context)[0])
        z1 = np.asarray(flax_attn.attention_maps(block, query, context)["z1"])
        x, y = query.reshape(2, 21, 5), context.reshape(2, 21, 5)
        heads = np.concatenate([third_attention(head, x, y) for head in block.layers], -1)

        def layer_norm(norm, z):
            centred = z - z.mean(-1, keepdims=True)
            scaled = centred / np.sqrt(z.var(-1, keepdims=True) + 1e-5) * np.asarray(norm.scale[...])
            return scaled + np.asarray(norm.bias[...])

        z2 = layer_norm(block.norm1, conv1x1(block.proj_down, heads) + y)
        mixed = conv1x1(block.mixing_layer2, np.maximum(conv1x1(block.mixing_layer1, z2), 0))
        expected = layer_norm(block.norm2, mixed + z2)
    assert relative_error(z1, heads) <= MAP
    assert relative_error(out, expected.reshape(2, 3, 7, 5)) <= OUTPUT


def without_attention():
    """A block whose projection and second mixing layer are zero: what remains are the two residuals and norms."""
    block = fx.ConvMultiHeadAttention(4, 4, 3, 5, 2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    for layer in (block.proj_down, block.mixing_layer2):
        layer.kernel[...], layer.bias[...] = 0 * layer.kernel[...], 0 * layer.bias[...]
    return block


def test_the_residual_adds_the_context():
    query, context = double(2, 7, 4), double(2, 7, 4, seed=1)
    with jax.enable_x64(True):
        out = np.asarray(without_attention()(query, context)[0])
    twice = F.layer_norm(F.layer_norm(torch.from_numpy(context), (4,)), (4,)).numpy()
    assert relative_error(out, twice) <= OUTPUT


def test_the_norms_have_eps_1e_5():
    # A variance of 1e-5 becomes 1/2 by the first norm; the second makes 1/2 / (1/2 + 1e-5) of that.
    row = np.array([1, -1, 1, -1])
    context = np.sqrt(1e-5) * row.reshape(1, 1, 4)
    with jax.enable_x64(True):
        out = np.asarray(without_attention()(context, context)[0])
    assert relative_error(out, (row / np.sqrt(1 + 2e-5)).reshape(1, 1, 4)) <= OUTPUT


def test_a_map_of_any_shape_is_the_sequence_of_its_pixels():
    # The tutorial's last reshape used the width twice.
    query, context = single(2, 3, 7, 5), single(2, 3, 7, 5, seed=1)
    block = fx.ConvMultiHeadAttention(5, 5, 11, 13, 3, rngs=nnx.Rngs(0))
    flat, _ = block(query.reshape(2, 21, 5), context.reshape(2, 21, 5))
    np.testing.assert_array_equal(block(query, context)[0], flat.reshape(2, 3, 7, 5))
    np.testing.assert_array_equal(block(query, context.reshape(2, 21, 5))[0], flat.reshape(2, 3, 7, 5))


def test_one_head_takes_contexts_of_any_length_and_width():
    block = fx.ConvAttention(13, 5, 7, 3, rngs=nnx.Rngs(0))
    out, weights = block(single(2, 3, 7, 5), single(2, 2, 4, 13), need_weights=True)
    assert (out.shape, weights.shape) == ((2, 3, 7, 3), (2, 1, 21, 8))


def test_weights_of_all_heads():
    x = single(2, 3, 7, 5)
    block = fx.ConvMultiHeadAttention(5, 5, 11, 13, 3, rngs=nnx.Rngs(0))
    _, weights = block(x, x, need_weights=True)
    assert weights.shape == (2, 3, 21, 21)
    for index, head in enumerate(block.layers):
        alone = head(x, x, need_weights=True)[1][:, 0]
        assert relative_error(np.asarray(weights[:, index]), np.asarray(alone)) <= tolerance("map", "float32")


def test_the_maps_on_request_are_the_weights():
    x = single(2, 3, 7, 5)
    for block in (
        fx.ConvAttention(5, 5, 11, 13, rngs=nnx.Rngs(0)),
        fx.ConvMultiHeadAttention(5, 5, 11, rngs=nnx.Rngs(0)),
    ):
        np.testing.assert_array_equal(
            flax_attn.attention_maps(block, x, x)["weights"], block(x, x, need_weights=True)[1]
        )


def test_maps_of_many_places_and_channels():
    # Python has one object per number up to 256: beyond, two equal lengths are two objects.
    block = nnx.eval_shape(lambda: fx.ConvMultiHeadAttention(int("257"), 257, rngs=nnx.Rngs(0)))
    assert block.proj_down.kernel.shape == (1, 128, 257)
    sequence = fx.as_sequence("context", np.ones((2, 17, 19, 5)), "mem_in", 5, length=int("323"))
    assert sequence.shape == (2, 323, 5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: fx.ConvAttention(5, 5, 11, 13, rngs=nnx.Rngs(0)),
        lambda: fx.ConvMultiHeadAttention(5, 5, 11, 13, 3, rngs=nnx.Rngs(0)),
    ],
)
def test_without_need_weights_there_are_none(make):
    assert make()(single(2, 3, 7, 5), single(2, 3, 7, 5))[1] is None


def test_the_defaults_are_the_tutorials():
    block = fx.ConvMultiHeadAttention(rngs=nnx.Rngs(0))
    assert len(block.layers) == 4
    shapes = {layer.kernel.shape for head in block.layers for layer in (head.query, head.key, head.value)}
    assert shapes == {(1, 32, 32)}
    assert block.proj_down.kernel.shape == (1, 128, 32)


def largest_array(jaxpr):
    inner = [getattr(sub, "jaxpr", sub) for equation in jaxpr.eqns for sub in jaxprs_in_params(equation.params)]
    sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
    return max([0, *sizes, *map(largest_array, inner)])


def test_no_array_is_larger_than_the_weights():
    # The tutorial makes a (b, key_size, n, n) product per head.
    block = fx.ConvMultiHeadAttention(5, 5, 11, 13, 3, rngs=nnx.Rngs(0))
    x = single(2, 11, 13, 5)
    program = jax.make_jaxpr(lambda x: block(x, x, need_weights=True)[1])(x)
    assert largest_array(program.jaxpr) == 2 * 3 * (11 * 13) ** 2


SIZES = ["mem_in", "query_in", "key_size", "output_size"]


@pytest.mark.parametrize("argument", SIZES)
def test_bad_sizes_of_one_head(argument):
    with pytest.raises(ValueError, match=f"{argument} must be a whole number >= 1, got 0"):
        fx.ConvAttention(**{argument: 0}, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 0}, "num_heads must be a whole number >= 1, got 0"),
        ({"num_heads": 2.0}, "num_heads must be a whole number >= 1, got 2.0"),
        ({"key_size": 0}, "key_size must be a whole number >= 1, got 0"),
        ({"output_size": -1}, "output_size must be a whole number >= 1, got -1"),
        ({"mem_in": 0, "query_in": 0}, "mem_in must be a whole number >= 1, got 0"),
        ({"mem_in": 7, "query_in": 5}, "mem_in must equal query_in=5, the residual adds the context, got 7"),
        ({"mem_in": 3, "query_in": 5}, "mem_in must equal query_in=5, the residual adds the context, got 3"),
    ],
)
def test_bad_arguments_of_the_block(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fx.ConvMultiHeadAttention(**arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("query", "context", "message"),
    [
        ((2, 3, 7, 4), (2, 11, 13), "query must have shape (b, h, w, query_in=5), got (2, 3, 7, 4)"),
        ((2, 7, 4), (2, 11, 13), "query must have shape (b, n, query_in=5), got (2, 7, 4)"),
        ((7, 5), (2, 11, 13), "query must be a sequence (b, n, c) or a map (b, h, w, c), got (7, 5)"),
        ((2, 7, 5), (2, 11, 5), "context must have shape (b=2, n, mem_in=13), got (2, 11, 5)"),
        ((2, 7, 5), (3, 11, 13), "context must have shape (b=2, n, mem_in=13), got (3, 11, 13)"),
        (
            (2, 7, 5),
            (1, 2, 3, 4, 13),
            "context must be a sequence (b, n, c) or a map (b, h, w, c), got (1, 2, 3, 4, 13)",
        ),
    ],
)
def test_bad_shapes_of_one_head(query, context, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fx.ConvAttention(13, 5, 7, 3, rngs=nnx.Rngs(0))(single(*query), single(*context))


@pytest.mark.parametrize(
    ("query", "context", "message"),
    [
        ((2, 3, 7, 5), (2, 22, 5), "context must have as many positions as the query, 21, got 22"),
        ((2, 3, 7, 5), (2, 3, 5, 5), "context must have as many positions as the query, 21, got 15"),
        ((2, 3, 7, 5), (2, 3, 7, 4), "context must have shape (b=2, h, w, mem_in=5), got (2, 3, 7, 4)"),
        ((2, 3, 7, 4), (2, 3, 7, 4), "query must have shape (b, h, w, query_in=5), got (2, 3, 7, 4)"),
        ((3, 5), (3, 5), "query must be a sequence (b, n, c) or a map (b, h, w, c), got (3, 5)"),
    ],
)
def test_bad_shapes_of_the_block(query, context, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fx.ConvMultiHeadAttention(5, 5, rngs=nnx.Rngs(0))(single(*query), single(*context))
