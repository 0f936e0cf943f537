"""What every block has in common about input that it cannot use: argument, expected, got."""

import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn import ops
from flax_attn.layers import BatchNorm, Conv, Linear, MaxPool
from flax_attn.networks.patch import PatchNetwork
from flax_attn.networks.sensor import SpatialAttentionNeuralNetwork

RNGS = {"rngs": nnx.Rngs(0)}


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: flax_attn.CBAM(8, 4, **RNGS)([[1.0]]), "x must be an array, got list"),
        (
            lambda: flax_attn.CBAM(8, 4, **RNGS)(jnp.ones((0, 2, 3, 8))),
            r"x must have shape \(b, h, w, c=8\), no axis of size 0, got \(0",
        ),
        (lambda: flax_attn.CBAM(8, 4, **RNGS)(jnp.ones((1, 0, 3, 8))), r"no axis of size 0, got \(1, 0, 3, 8\)"),
        (lambda: flax_attn.ScaledDotProductAttention(1.0, 2, **RNGS), r"attn_dropout must lie in \[0, 1\], got 2"),
        (lambda: flax_attn.ConvAttention(3, 3, **RNGS)([1], [2]), "query must be an array, got list"),
        (
            lambda: flax_attn.ConvAttention(3, 3, **RNGS)(jnp.ones((2, 3)), 0),
            r"a sequence .* or a map .*, got \(2, 3\)",
        ),
        (lambda: Linear(0, 3, **RNGS), "in_features must be a whole number >= 1, got 0"),
        (lambda: Conv(4, 8, (3,), groups=8, **RNGS), "groups must divide 4 and 8 channels, got 8"),
        (
            lambda: PatchNetwork(flax_attn.CBAM(32, **RNGS), "article", **RNGS),
            "token_order must be 'pixels' without token attention, got 'article'",
        ),
        (lambda: flax_attn.ChannelGate(8, 4, (p for p in ["avg"]), **RNGS), "pool_types must be a sequence"),
        (lambda: flax_attn.BasicConv(3, 5, (3,), **RNGS), r"kernel_size must be an int or a pair of ints, got \(3,\)"),
        (lambda: flax_attn.BasicConv(3, 5, 2.5, **RNGS), r"kernel_size\[0\] must be a whole number >= 1, got 2.5"),
        (lambda: flax_attn.BasicConv(3, 5, 3, padding=-1, **RNGS), "padding must be a whole number >= 0, got -1"),
        (
            lambda: flax_attn.BasicConv(3, 5, 7, dilation=2, padding=1, **RNGS)(jnp.ones((1, 10, 12, 3))),
            "x must have h >= 11 for a kernel that spans 13, got 10",
        ),
        (lambda: flax_attn.SinePositionEncoding2d(8, 0, **RNGS), "temperature must be a finite number above 0, got 0"),
        (lambda: flax_attn.MultiHeadAttention(2, 4, 2, 2, "0.1", **RNGS), r"dropout must lie in \[0, 1\], got '0.1'"),
        (lambda: PatchNetwork("cbam", **RNGS), "block must be an nnx.Module or None, got 'cbam'"),
        (lambda: PatchNetwork(flax_attn.CBAM, **RNGS), "block must be an nnx.Module or None"),
        (
            lambda: PatchNetwork(
                flax_attn.CBAM(32, **RNGS), "pixels", flax_attn.SinePositionEncoding2d(32, **RNGS), **RNGS
            ),
            "position must be None without token attention, got SinePositionEncoding2d",
        ),
        (
            lambda: PatchNetwork(flax_attn.ChannelAttention(32, **RNGS), **RNGS)(jnp.ones((1, 8, 12, 3))),
            r"the block's output must have shape \(b=1, h=2, w=3, c=32\), got \(1, 1, 1, 32\)",
        ),
        (lambda: SpatialAttentionNeuralNetwork((), 3, **RNGS), r"train_shape must be a shape .*, got \(\)"),
        (lambda: SpatialAttentionNeuralNetwork(9, 3, **RNGS), "train_shape must be a shape .*, got 9"),
        (lambda: BatchNorm(5, **RNGS)(jnp.ones((2, 1))), r"x must have shape \(axis_0, c=5\), got \(2, 1\)"),
        (
            lambda: ops.tokens_to_map(jnp.ones((1, 15, 2)), 4, 5),
            r"tokens must have shape \(b, n=20, c\), got \(1, 15, 2\)",
        ),
        (lambda: flax_attn.attention_maps(lambda x: x, 1), "module must be an nnx.Module, got function"),
        (
            lambda: flax_attn.AdditiveAttention(3, 3, 3, **RNGS)(*[jnp.ones((2, 5, 3))] * 3, [[1]]),
            "mask must be an array, got list",
        ),
        (
            lambda: flax_attn.AdditiveAttention(3, 3, 3, **RNGS)(*[jnp.ones((2, 5, 3))] * 3, torch.ones(2, 5, 5)),
            "mask must be an array, got Tensor",
        ),
    ],
)
def test_bad_input(use, message):
    with pytest.raises(ValueError, match=message):
        use()


@pytest.mark.parametrize(
    "build",
    [
        lambda rngs: flax_attn.BAM(8, 4, dilation_conv_num=0, rngs=rngs),
        lambda rngs: flax_attn.BottleneckAttention(8, feat_size=(1, 1), num_heads=8, rngs=rngs),
        lambda rngs: flax_attn.CrissCrossAttention(8, rngs=rngs),
        lambda rngs: flax_attn.DANetPositionAttention(8, rngs=rngs),
        lambda rngs: flax_attn.DifferentialAttention(2, 1, depth=0, rngs=rngs),
        lambda rngs: flax_attn.FocalModulation(4, 3, 2, focal_factor=0, rngs=rngs),
        lambda rngs: flax_attn.GatherExcite(8, extent=0, rngs=rngs),
        lambda rngs: flax_attn.GatherExcite(8, extra_params=True, extent=2, rngs=rngs),
        lambda rngs: flax_attn.GlobalResponseNorm(2, eps=0, rngs=rngs),
        lambda rngs: flax_attn.HaloAttention(8, num_heads=1, block_size=2, halo_size=0, rngs=rngs),
        lambda rngs: flax_attn.MultiSpectralAttention(16, 7, 7, rngs=rngs),
        lambda rngs: flax_attn.OutlookAttention(4, 1, kernel_size=1, padding=0, rngs=rngs),
        lambda rngs: flax_attn.SequentialPolarizedSelfAttention(2, rngs=rngs),
        lambda rngs: flax_attn.SimAM(0, rngs=rngs),
        lambda rngs: MaxPool(2, padding=1),
    ],
)
def test_the_least_that_is_allowed(build):
    nnx.eval_shape(lambda: build(nnx.Rngs(0)))


def test_whole_numbers_become_floats():
    assert ops.global_pool(jnp.full((1, 3, 5, 1), 200, jnp.uint8), "lp").dtype == jnp.float32
    x = jnp.ones((1, 2, 3, 8), jnp.int32)
    encoded = flax_attn.SinePositionEncoding2d(8, **RNGS)(x)
    assert (encoded == flax_attn.SinePositionEncoding2d(8, **RNGS)(x.astype(jnp.float32))).all()
