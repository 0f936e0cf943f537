import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import expit, logsumexp

import flax_attn
from flax_attn.blocks import cbam as fx
from flax_attn.testing import relative_error, tolerance
from torch_ref.blocks import cbam as pt
from torch_ref.originals import Original

CLOSE = tolerance("input gradient", "float32")

OUTPUT, MAP, BUFFER = (tolerance(quantity, "float64") for quantity in ("output", "map", "buffer"))

POOLS = {
    "avg": lambda x: x.mean((1, 2)),
    "max": lambda x: x.max((1, 2)),
    "lp": lambda x: np.linalg.norm(x, axis=(1, 2)),  # a sum of squares, not their mean
    "lse": lambda x: logsumexp(x, axis=(1, 2)),  # a sum, without 1/n
}


def double(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def numpy_conv(x, kernel, stride=1, padding=0, dilation=1, groups=1):
    """Convolves (b, h, w, c) with (kh, kw, c / groups, out), one window beside the other."""
    kh, kw, _, out = kernel.shape
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = sliding_window_view(x, (dilation * (kh - 1) + 1, dilation * (kw - 1) + 1), (1, 2))
    windows = windows[:, ::stride, ::stride, :, ::dilation, ::dilation]
    parts = zip(np.split(windows, groups, 3), np.split(kernel, groups, 3), strict=True)
    return np.concatenate([np.einsum("bhwcij,ijco->bhwo", *part) for part in parts], -1).reshape(
        *windows.shape[:3], out
    )


def numpy_batch_norm(x, norm):
    axes = (0, 1, 2)
    scaled = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)
    return scaled * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def shake(norm):
    """Moves scale and bias of a norm off 1 and 0."""
    norm.scale[...] = 1 + 0.3 * double(norm.num_features, seed=5)
    norm.bias[...] = double(norm.num_features, seed=6)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (3, 5), "stride": 2, "padding": 1, "dilation": 2, "groups": 2},
        {"kernel_size": 4, "padding": 2},
        {"kernel_size": 3, "relu": False},
    ],
)
def test_basic_conv_is_convolution_norm_and_relu(options):
    x = double(3, 7, 11, 4)
    with jax.enable_x64(True):
        block = fx.BasicConv(4, 6, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        shake(block.bn)
        out = np.asarray(block(jnp.asarray(x)))
        convolution = {name: value for name, value in options.items() if name not in ("kernel_size", "relu")}
        expected = numpy_batch_norm(numpy_conv(x, np.asarray(block.conv.kernel[...]), **convolution), block.bn)
    if options.get("relu", True):
        expected = np.maximum(expected, 0)
    assert (expected < 0).any() != options.get("relu", True)
    assert relative_error(out, expected) <= OUTPUT


def test_basic_conv_without_norm_and_relu_and_with_bias():
    x = double(3, 7, 11, 5)
    with jax.enable_x64(True):
        block = fx.BasicConv(5, 3, 3, relu=False, bn=False, bias=True, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out = np.asarray(block(jnp.asarray(x)))
        expected = numpy_conv(x, np.asarray(block.conv.kernel[...])) + np.asarray(block.conv.bias[...])
    assert relative_error(out, expected) <= OUTPUT


def test_basic_conv_has_no_bias_by_default():
    assert fx.BasicConv(4, 6, 3, rngs=nnx.Rngs(0)).conv.bias is None


@pytest.mark.parametrize(
    ("kernel_size", "options", "reach", "smallest"),
    [
        ((7, 4), {"dilation": 3, "padding": 2}, (19, 10), (15, 6)),
        ((5, 3), {"padding": 1}, (5, 3), (3, 1)),
        (4, {"dilation": 2}, (7, 7), (7, 7)),
    ],
)
def test_basic_conv_takes_maps_that_its_kernel_fits_into_and_no_smaller_ones(kernel_size, options, reach, smallest):
    def call(x):
        return fx.BasicConv(2, 3, kernel_size, **options, bn=False, rngs=nnx.Rngs(0))(x)

    h, w = smallest
    assert jax.eval_shape(call, jnp.ones((1, h, w, 2))).shape == (1, 1, 1, 3)
    for name, size, axis in (("h", (h - 1, w), 0), ("w", (h, w - 1), 1)):
        if 0 in size:
            continue
        message = f"x must have {name} >= {smallest[axis]} for a kernel that spans {reach[axis]}, got {size[axis]}"
        with pytest.raises(ValueError, match=rf"^{message}\b"):
            jax.eval_shape(call, jnp.ones((1, *size, 2)))


def test_running_statistics_move_by_a_hundredth():
    x = double(3, 7, 11, 4)
    with jax.enable_x64(True):
        block = fx.BasicConv(4, 6, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        block(jnp.asarray(x))
        convolved = numpy_conv(x, np.asarray(block.conv.kernel[...]))
        mean, var = np.asarray(block.bn.mean[...]), np.asarray(block.bn.var[...])
    assert relative_error(mean, 0.01 * convolved.mean((0, 1, 2))) <= BUFFER
    assert relative_error(var, 0.99 + 0.01 * convolved.var((0, 1, 2), ddof=1)) <= BUFFER


@pytest.mark.parametrize("pool_types", [("avg",), ("max",), ("lp",), ("lse",), ("avg", "max"), ("lse", "avg", "lp")])
def test_channel_gate_sums_the_mlp_over_its_pools(pool_types):
    x = double(2, 5, 7, 13)
    with jax.enable_x64(True):
        block = fx.ChannelGate(13, 4, pool_types, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out = np.asarray(block(jnp.asarray(x)))
        _, first, _, second = block.mlp.layers
        (w1, b1), (w2, b2) = ((np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])) for layer in (first, second))
    assert w1.shape == (13, 3)  # 13 // 4 hidden units
    total = sum(np.maximum(POOLS[pool](x) @ w1 + b1, 0) @ w2 + b2 for pool in pool_types)
    assert relative_error(out, x * expit(total)[:, None, None]) <= OUTPUT


def test_channel_gate_pools_avg_and_max_by_default():
    x = double(2, 5, 7, 16)
    default, named = fx.ChannelGate(16, rngs=nnx.Rngs(0)), fx.ChannelGate(16, 16, ["avg", "max"], rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(default(jnp.asarray(x)), named(jnp.asarray(x)))


def test_channel_pool_is_maximum_then_mean():
    # Published checkpoints depend on the order: swapped on both sides, every comparison of the two would pass.
    pixel = jnp.array([1.0, 2.0, 6.0]).reshape(1, 1, 1, 3)
    np.testing.assert_array_equal(fx.ChannelPool(rngs=nnx.Rngs(0))(pixel).ravel(), [6, 3])
    np.testing.assert_array_equal(pt.ChannelPool()(torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)).ravel(), [6, 3])


def test_spatial_gate_against_numpy():
    x = double(3, 11, 7, 5)
    with jax.enable_x64(True):
        block = fx.SpatialGate(param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        shake(block.spatial.bn)
        out = np.asarray(block(jnp.asarray(x)))
        pooled = np.stack([x.max(-1), x.mean(-1)], -1)
        convolved = numpy_conv(pooled, np.asarray(block.spatial.conv.kernel[...]), padding=3)
        expected = x * expit(numpy_batch_norm(convolved, block.spatial.bn))
    assert block.spatial.conv.kernel.shape == (7, 7, 2, 1)
    assert relative_error(out, expected) <= OUTPUT


def test_the_gate_of_the_spatial_gate_is_not_clipped_by_a_relu():
    gate = flax_attn.attention_maps(fx.SpatialGate(rngs=nnx.Rngs(0)), jnp.asarray(double(3, 11, 7, 5)))["gate"]
    assert gate.shape == (3, 11, 7, 1)
    assert (gate < 0.5).any()


def test_fightingcvs_block_of_this_name_is_another_function():
    path = "fightingcv_attention.attention.CBAM.py:CBAMBlock"
    theirs = Original("CBAM", {}, path, {"channel": 32, "kernel_size": 7}).load()
    for parameter in theirs.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.ones(1, 32, 2, 3)
    # Both gates are 1/2, and the input is added again.
    torch.testing.assert_close(theirs(x), 1.25 * x, rtol=CLOSE, atol=0)
    assert not [name for name in theirs.state_dict() if "running" in name]


def test_cbam_leaves_the_spatial_gate_out_by_default():
    # The authors' default is False; the tutorial's, which this follows, is True.
    x = jnp.asarray(double(2, 5, 7, 17))
    block = fx.CBAM(17, 4, rngs=nnx.Rngs(0))
    assert block.spatial_gate is None
    np.testing.assert_array_equal(block(x), block.channel_gate(x))
    assert list(flax_attn.attention_maps(block, x)) == ["channel_gate.gate"]


def test_cbam_is_the_channel_gate_and_then_the_spatial_gate():
    x = jnp.asarray(double(2, 5, 7, 17))
    block = fx.CBAM(17, 4, ["avg", "lse"], no_spatial=False, rngs=nnx.Rngs(0))
    assert block.channel_gate.pool_types == ("avg", "lse")
    np.testing.assert_array_equal(block(x), block.spatial_gate(block.channel_gate(x)))
    assert not np.array_equal(block(x), block.channel_gate(block.spatial_gate(x)))


def test_an_mlp_without_biases_is_one_whose_biases_are_zero():
    x, theirs = double(2, 17, 5, 7), pt.CBAM(17, 4, mlp_bias=False).double()
    weights = theirs.state_dict()
    zeros = {"channel_gate.mlp.1.bias": np.zeros(4), "channel_gate.mlp.3.bias": np.zeros(17)}
    with jax.enable_x64(True):
        bare, whole = (
            fx.CBAM(17, 4, mlp_bias=bias, param_dtype=jnp.float64, rngs=nnx.Rngs(0)) for bias in (False, True)
        )
        flax_attn.from_torch(bare, weights)
        flax_attn.from_torch(whole, {**weights, **zeros})
        got, same = (np.asarray(block(jnp.asarray(np.moveaxis(x, 1, -1)))) for block in (bare, whole))
    want = np.moveaxis(theirs(torch.from_numpy(x)).detach().numpy(), 1, -1)
    assert relative_error(got, want) <= OUTPUT
    np.testing.assert_array_equal(got, same)


@pytest.mark.parametrize("shape", [(2, 1, 1, 17), (2, 2, 3, 17), (1, 8, 5, 17)])
def test_cbam_takes_maps_of_any_size(shape):
    def call(x):
        return fx.CBAM(17, 4, list(POOLS), no_spatial=False, rngs=nnx.Rngs(0))(x)

    assert jax.eval_shape(call, jnp.ones(shape)).shape == shape


BAD_ARGUMENTS = [
    (fx.BasicConv, (0, 6, 3), {}, "in_planes must be a whole number >= 1, got 0"),
    (fx.BasicConv, (4, -6, 3), {}, "out_planes must be a whole number >= 1, got -6"),
    (fx.BasicConv, (4, 6, 0), {}, "kernel_size[0] must be a whole number >= 1, got 0"),
    (fx.BasicConv, (4, 6, (3, 0)), {}, "kernel_size[1] must be a whole number >= 1, got 0"),
    (fx.BasicConv, (4, 6, (3, 5, 7)), {}, "kernel_size must be an int or a pair of ints, got (3, 5, 7)"),
    (fx.BasicConv, (4, 6, 3), {"stride": 0}, "stride must be a whole number >= 1, got 0"),
    (fx.BasicConv, (4, 6, 3), {"dilation": 0}, "dilation must be a whole number >= 1, got 0"),
    (fx.BasicConv, (4, 6, 3), {"groups": 0}, "groups must be a whole number >= 1, got 0"),
    (fx.BasicConv, (4, 6, 3), {"groups": 3}, "groups must divide in_planes=4 and out_planes=6, got 3"),
    (fx.BasicConv, (4, 6, 3), {"groups": 4}, "groups must divide in_planes=4 and out_planes=6, got 4"),
    (fx.ChannelGate, (0,), {}, "gate_channels must be a whole number >= 1, got 0"),
    (
        fx.ChannelGate,
        (13, 16),
        {},
        "reduction_ratio must be at most 13, the number of channels, to leave a hidden unit, got 16",
    ),
    (fx.ChannelGate, (13, 0), {}, "reduction_ratio must be a whole number >= 1, got 0"),
    (fx.ChannelGate, (13, 4, ["avg", "min"]), {}, "pool_types must be one of 'avg', 'max', 'lp', 'lse', got 'min'"),
    (fx.ChannelGate, (13, 4, []), {}, "pool_types must be a sequence of at least one pool type, got []"),
    (fx.ChannelGate, (13, 4, "avg"), {}, "pool_types must be a sequence of at least one pool type, got 'avg'"),
    (fx.CBAM, (13,), {}, "reduction_ratio must be at most 13, the number of channels, to leave a hidden unit, got 16"),
    (fx.CBAM, (13, 4, ("mean",)), {}, "pool_types must be one of 'avg', 'max', 'lp', 'lse', got 'mean'"),
]


@pytest.mark.parametrize(("block", "arguments", "options", "message"), BAD_ARGUMENTS)
def test_bad_arguments(block, arguments, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        block(*arguments, **options, rngs=nnx.Rngs(0))


FIXED = [
    lambda rngs: fx.BasicConv(13, 3, 3, rngs=rngs),
    lambda rngs: fx.ChannelGate(13, 4, rngs=rngs),
    lambda rngs: fx.CBAM(13, 4, rngs=rngs),
]
ANY = [lambda rngs: fx.ChannelPool(rngs=rngs), lambda rngs: fx.SpatialGate(rngs=rngs)]


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [(make, shape, "(b, h, w, c=13)") for make in FIXED for shape in [(5, 7, 13), (2, 5, 7, 11), (2, 13, 5, 7)]]
    + [(make, shape, "(b, h, w, c)") for make in ANY for shape in [(5, 7, 13), (2, 3, 5, 7, 13)]],
)
def test_bad_shapes(make, shape, expected):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape {expected}, got {shape}")):
        make(nnx.Rngs(0))(jnp.ones(shape))
