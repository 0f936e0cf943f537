import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import expit

from flax_attn import CBAM, ConvMultiHeadAttention, MultiHeadAttention
from flax_attn.networks import patch as fx
from flax_attn.testing import relative_error, tolerance

OUTPUT, BUFFER = tolerance("output", "float64"), tolerance("buffer", "float64")

# The networks by name, and the block that each of them holds.
NETWORKS = {
    fx.Net: type(None),
    fx.NetMultiHeadAttention: MultiHeadAttention,
    fx.NetConvMultiHeadAttention: ConvMultiHeadAttention,
    fx.NetCBAM: CBAM,
}


def images(*size, b=2, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(0).standard_normal((b, *size, 3)), dtype)


def conv5x5(layer, x):
    windows = sliding_window_view(np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))), (5, 5), (1, 2))
    return np.einsum("bhwcij,ijco->bhwo", windows, np.asarray(layer.kernel[...])) + np.asarray(layer.bias[...])


def leaky_relu(x):
    return np.where(x > 0, x, 0.01 * x)


def batch_norm(norm, x):
    normal = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    return normal * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def max_pool(x):
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


def test_conv_part_against_numpy():
    # Convolution, leaky ReLU, then norm, then pool: the order matters.
    with jax.enable_x64(True):
        x = images(11, 14, dtype=jnp.float64)
        part = fx.ConvPart(param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        rng = np.random.default_rng(1)
        for norm in (part.bn1a, part.bn2a):
            norm.scale[...], norm.bias[...] = rng.standard_normal(32), rng.standard_normal(32)
        out = np.asarray(part(x))
        first = leaky_relu(conv5x5(part.c1a, np.asarray(x)))
        second = leaky_relu(conv5x5(part.c2a, max_pool(batch_norm(part.bn1a, first))))
        expected = conv5x5(part.c3, max_pool(batch_norm(part.bn2a, second)))
        mean, var = np.asarray(part.bn1a.mean[...]), np.asarray(part.bn1a.var[...])
    assert out.shape == (2, 2, 3, 32)
    assert relative_error(out, expected) <= OUTPUT
    # Momentum 0.1, ten times CBAM's.
    assert relative_error(mean, 0.1 * first.mean((0, 1, 2))) <= BUFFER
    assert relative_error(var, 0.9 + 0.1 * first.var((0, 1, 2), ddof=1)) <= BUFFER


def test_the_probability_is_the_sigmoid_of_a_linear_layer_on_the_mean_over_the_map():
    with jax.enable_x64(True):
        network = fx.Net(param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        p, attended = (np.asarray(result) for result in network(images(11, 14, dtype=jnp.float64)))
        kernel, bias = np.asarray(network.final.kernel[...]), np.asarray(network.final.bias[...])
    assert p.shape == (2,)
    assert relative_error(p, expit(attended.mean((1, 2)) @ kernel + bias)[:, 0]) <= OUTPUT


class Probe(nnx.Module):
    """A block that remembers what it was called with; its subclasses say how blocks may be called."""

    def __init__(self):
        self.seen = nnx.data(())


class TokenProbe(Probe):
    def __call__(self, query, key, value, mask=None, *, need_weights=False):
        self.seen = (query, key, value, mask)
        return query + 1, None


class ContextProbe(Probe):
    def __call__(self, query, context, *, need_weights=False):
        self.seen = (query, context)
        return query + 1, None


class GateProbe(Probe):
    def __call__(self, x):
        self.seen = (x,)
        return x + 1


def probed(probe, **options):
    """The feature map before the block, and what the network made of it."""
    network = fx.PatchNetwork(probe, **options, rngs=nnx.Rngs(0))
    network.eval()
    x = images(11, 14)
    return network.conv(x), network(x)[1]


def test_without_a_block_the_attended_map_is_the_feature_map():
    features, attended = probed(None)
    np.testing.assert_array_equal(attended, features)


@pytest.mark.parametrize("probe", [ContextProbe, GateProbe])
def test_a_block_gets_the_map_as_often_as_it_asks(probe):
    block = probe()
    features, attended = probed(block)
    for argument in block.seen:
        np.testing.assert_array_equal(argument, features)
    assert len(block.seen) == (2 if probe is ContextProbe else 1)
    np.testing.assert_array_equal(attended, features + 1)


@pytest.mark.parametrize("token_order", ["pixels", "article"])
def test_token_attention_gets_tokens_in_the_chosen_order(token_order):
    block = TokenProbe()
    features, attended = probed(block, token_order=token_order)
    z = np.asarray(features)
    article = z.transpose(0, 3, 1, 2).reshape(2, 6, 32)
    expected = {"pixels": z.reshape(2, 6, 32), "article": article}[token_order]
    query, key, value, mask = block.seen
    for tokens in (query, key, value):
        np.testing.assert_array_equal(tokens, expected)
    assert mask is None
    np.testing.assert_array_equal(attended, features + 1)


def test_the_default_order_is_pixels():
    block = TokenProbe()
    features, _ = probed(block)
    np.testing.assert_array_equal(block.seen[0][1, 5], features[1, 1, 2])


def test_the_same_weights_compute_another_function_in_the_other_order():
    x = images(11, 14)
    results = []
    for token_order in ("pixels", "article"):
        network = fx.NetMultiHeadAttention(token_order, rngs=nnx.Rngs(0))
        network.eval()
        results.append(network(x)[1])
    assert not np.array_equal(*results)


def test_the_position_is_added_before_token_attention():
    class Hundred(nnx.Module):
        def __call__(self, x):
            return x + 100

    block = TokenProbe()
    features, attended = probed(block, position=Hundred())
    np.testing.assert_array_equal(block.seen[0].reshape(features.shape), features + 100)
    np.testing.assert_array_equal(attended, features + 100 + 1)


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_by_name(network):
    def call(x):
        module = network(rngs=nnx.Rngs(0))
        assert type(module.attn1) is NETWORKS[network]
        assert isinstance(module, fx.PatchNetwork)
        return module(x)

    p, attended = jax.eval_shape(call, jnp.ones((2, 96, 96, 3)))
    assert (p.shape, attended.shape) == ((2,), (2, 24, 24, 32))


@pytest.mark.parametrize("size", [(4, 4), (7, 13), (30, 22)])
@pytest.mark.parametrize("network", NETWORKS)
def test_images_of_any_size(network, size):
    p, attended = jax.eval_shape(lambda x: network(rngs=nnx.Rngs(0))(x), jnp.ones((3, *size, 3)))
    assert (p.shape, attended.shape) == ((3,), (3, size[0] // 4, size[1] // 4, 32))


def test_the_blocks_are_the_tutorials():
    attn1 = nnx.eval_shape(lambda: fx.NetMultiHeadAttention(rngs=nnx.Rngs(0))).attn1
    assert (attn1.n_head, attn1.d_model, attn1.d_k, attn1.d_v, attn1.dropout.rate) == (4, 32, 8, 8, 0.1)
    assert attn1.residual
    assert attn1.layer_norm is not None
    attn1 = nnx.eval_shape(lambda: fx.NetConvMultiHeadAttention(rngs=nnx.Rngs(0))).attn1
    assert (len(attn1.layers), attn1.layers[0].key_size, attn1.query_in) == (4, 32, 32)
    attn1 = nnx.eval_shape(lambda: fx.NetCBAM(rngs=nnx.Rngs(0))).attn1
    assert (attn1.spatial_gate, attn1.channel_gate.pool_types) == (None, ("avg", "max"))
    assert attn1.channel_gate.mlp.layers[1].kernel.shape == (32, 2)
    attn1 = nnx.eval_shape(lambda: fx.NetCBAM(no_spatial=False, rngs=nnx.Rngs(0))).attn1
    assert attn1.spatial_gate is not None


def test_probabilities_are_float32_under_bfloat16():
    # The loss takes logarithms of p and 1 - p, and bfloat16 has no number between 0.996 and 1.
    def call(x):
        return fx.NetCBAM(dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(x)

    p, attended = jax.eval_shape(call, jnp.ones((2, 12, 20, 3)))
    assert (p.dtype, attended.dtype) == (jnp.float32, jnp.bfloat16)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda rngs: fx.PatchNetwork(token_order="rows", rngs=rngs),
            "token_order must be one of 'pixels', 'article', got 'rows'",
        ),
        (
            lambda rngs: fx.NetMultiHeadAttention("rows", rngs=rngs),
            "token_order must be one of 'pixels', 'article', got 'rows'",
        ),
        (
            lambda rngs: fx.NetMultiHeadAttention(position="cosine", rngs=rngs),
            "position must be one of None, 'sine', 'learned', got 'cosine'",
        ),
        (lambda rngs: fx.NetMultiHeadAttention(height=0, rngs=rngs), "height must be a whole number >= 1, got 0"),
        (lambda rngs: fx.NetMultiHeadAttention(width=-1, rngs=rngs), "width must be a whole number >= 1, got -1"),
        (lambda rngs: fx.NetMultiHeadAttention(dropout=1.5, rngs=rngs), "dropout must lie in [0, 1], got 1.5"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        nnx.eval_shape(lambda: make(nnx.Rngs(0)))


@pytest.mark.parametrize("network", [fx.ConvPart, *NETWORKS])
@pytest.mark.parametrize("shape", [(96, 96, 3), (2, 3, 96, 96), (2, 96, 96, 1)])
def test_bad_shapes(network, shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=3), got {shape}")):
        jax.eval_shape(lambda x: network(rngs=nnx.Rngs(0))(x), jnp.ones(shape))


@pytest.mark.parametrize("network", [fx.ConvPart, *NETWORKS])
@pytest.mark.parametrize("size", [(3, 96), (96, 3)])
def test_images_too_small_to_be_halved_twice(network, size):
    message = f"x must be at least 4 by 4 pixels, as it is halved twice, got {size[0]} by {size[1]}"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda x: network(rngs=nnx.Rngs(0))(x), jnp.ones((2, *size, 3)))


def test_the_learned_position_knows_one_size():
    def call(x):
        return fx.NetMultiHeadAttention(position="learned", height=5, width=7, rngs=nnx.Rngs(0))(x)

    assert jax.eval_shape(call, jnp.ones((2, 20, 28, 3)))[1].shape == (2, 5, 7, 32)
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h=5, w=7, c=32), got (2, 7, 5, 32)")):
        jax.eval_shape(call, jnp.ones((2, 28, 20, 3)))
