"""CBAM: a channel gate followed by a spatial gate.

Woo, Park, Lee & Kweon, "CBAM: convolutional block attention module", ECCV 2018, following the authors' code:
``x' = x * sigmoid(sum over pools of MLP(pool(x)))`` per channel (equation 2), then
``x'' = x' * sigmoid(BN(conv7x7([max_c x', mean_c x'])))`` per pixel (equation 3).

Differs from many reimplementations: the spatial gate's input is (max, mean), the order that published checkpoints
expect; ``lse`` and ``lp`` sum over pixels instead of averaging; and BatchNorm's momentum is 0.01.

Differs from the authors' code: ``no_spatial`` defaults to True, as in the tutorial this package follows.

Differs from timm's ``CbamModule``: the MLP of that has no biases by default, ``mlp_bias=False`` here, its spatial gate
reads (mean, max), and BatchNorm's momentum is 0.1. ``rename=NAMES["timm.CbamModule"]`` loads its weights, with the two
inputs of the spatial gate swapped.

Differs from pytorchcv's ``CbamBlock`` in BatchNorm's momentum, 0.1, alone. fightingcv's ``CBAMBlock`` is another
function: it adds its input to the result and has no BatchNorm.
"""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_choice, check_positive, check_ratio, check_reach, check_shape
from ..layers import BatchNorm, Conv, Linear
from ..ops.pooling import POOL_TYPES
from ..options import Options, check_options


class BasicConv(nnx.Module):
    """Convolution with optional BatchNorm (eps 1e-5, momentum 0.01) and ReLU.

    Args:
        in_planes: Number of input channels.
        out_planes: Number of output channels.
        kernel_size: Size of the kernel, one int or a pair.
        stride: Stride along both axes.
        padding: Zero padding on each side of both axes.
        dilation: Dilation along both axes.
        groups: Number of channel groups; must divide ``in_planes`` and ``out_planes``.
        relu: Whether to apply a ReLU at the end.
        bn: Whether to apply BatchNorm after the convolution.
        bias: Whether the convolution has a bias.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, or ``groups`` does not divide the channels.

    Example:
        >>> BasicConv(3, 5, 3, padding=1, rngs=nnx.Rngs(0))(jnp.ones((2, 4, 7, 3))).shape
        (2, 4, 7, 5)
    """

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        relu: bool = True,
        bn: bool = True,
        bias: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        kernel = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size, kernel_size)
        if len(kernel) != 2:
            raise ValueError(f"kernel_size must be an int or a pair of ints, got {kernel_size!r}")
        check_positive(in_planes=in_planes, out_planes=out_planes, stride=stride, dilation=dilation, groups=groups)
        check_positive(**{f"kernel_size[{axis}]": size for axis, size in enumerate(kernel)})
        check_positive(minimum=0, padding=padding)
        if in_planes % groups or out_planes % groups:
            raise ValueError(f"groups must divide in_planes={in_planes} and out_planes={out_planes}, got {groups}")
        self.in_planes = in_planes
        self.padding = padding
        self.reach = tuple(dilation * (size - 1) + 1 for size in kernel)
        self.conv = Conv(
            in_planes,
            out_planes,
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            rngs=rngs,
            **options,
        )
        norm = partial(BatchNorm, momentum=0.01, rngs=rngs, **options)
        self.bn = nnx.data(norm(out_planes) if bn else None)
        self.relu = relu

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer to a map (b, h, w, in_planes) and returns (b, h', w', out_planes)."""
        check_shape("x", x, "b h w c", c=self.in_planes)
        check_reach("x", x, self.reach, self.padding)
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return ops.relu(x) if self.relu else x


class ChannelGate(nnx.Module):
    """Scales each channel by a gate that a shared MLP computes from the pooled map (CBAM's channel gate).

    Args:
        gate_channels: Number of channels.
        reduction_ratio: The MLP has gate_channels // reduction_ratio hidden units.
        pool_types: Any of "avg", "max", "lp", "lse"; the MLP's outputs are summed over the pools.
        mlp_bias: Whether the MLP's layers have biases.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the ratio leaves no hidden unit, or a pool type is unknown.

    Example:
        >>> ChannelGate(8, 4, ["avg", "max", "lse"], rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 8))).shape
        (2, 5, 7, 8)
    """

    def __init__(
        self,
        gate_channels: int,
        reduction_ratio: int = 16,
        pool_types: Sequence[str] = ("avg", "max"),
        mlp_bias: bool = True,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(gate_channels=gate_channels)
        check_ratio("reduction_ratio", reduction_ratio, gate_channels)
        if isinstance(pool_types, str) or not isinstance(pool_types, Sequence) or not pool_types:
            raise ValueError(f"pool_types must be a sequence of at least one pool type, got {pool_types!r}")
        for pool_type in pool_types:
            check_choice("pool_types", pool_type, POOL_TYPES)
        linear = partial(Linear, bias=mlp_bias, rngs=rngs, **options)
        hidden = gate_channels // reduction_ratio
        self.gate_channels = gate_channels
        self.pool_types = tuple(pool_types)
        self.dtype = options.get("dtype")
        # The first and third entries stand for the original's Flatten and ReLU, to keep its Sequential's indices.
        self.mlp = nnx.Sequential(_flatten, linear(gate_channels, hidden), ops.relu, linear(hidden, gate_channels))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, 1, 1, gate_channels) to a map (b, h, w, gate_channels)."""
        check_shape("x", x, "b h w c", c=self.gate_channels)
        x = ops.cast(x, self.dtype)
        pooled = jnp.stack([ops.global_pool(x, pool_type) for pool_type in self.pool_types])
        scale = ops.sigmoid(jnp.sum(self.mlp(pooled), axis=0))[:, None, None, :]
        ops.record(self, "gate", scale)
        return ops.multiply(x, scale)


class ChannelPool(nnx.Module):
    """Stacks the maximum and the mean over channels: (b, h, w, c) to (b, h, w, 2).

    Args:
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> ChannelPool(rngs=nnx.Rngs(0))(jnp.array([1.0, 2.0, 6.0]).reshape(1, 1, 1, 3)).ravel().tolist()
        [6.0, 3.0]
    """

    def __init__(self, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        self.dtype = options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pools a map (b, h, w, c) over its channels."""
        check_shape("x", x, "b h w c")
        x = ops.cast(x, self.dtype)
        return jnp.concatenate([ops.max_first(x, -1), jnp.mean(x, axis=-1, keepdims=True)], axis=-1)


class SpatialGate(nnx.Module):
    """Scales each pixel by a gate from a 7x7 convolution of the channel maximum and mean (CBAM's spatial gate).

    Args:
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> SpatialGate(rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 3))).shape
        (2, 5, 7, 3)
    """

    def __init__(self, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        self.compress = ChannelPool(rngs=rngs, **options)
        self.spatial = BasicConv(2, 1, 7, padding=3, relu=False, rngs=rngs, **options)
        self.dtype = options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, h, w, 1) to a map (b, h, w, c)."""
        check_shape("x", x, "b h w c")
        x = ops.cast(x, self.dtype)
        scale = ops.sigmoid(self.spatial(self.compress(x)))
        ops.record(self, "gate", scale)
        return ops.multiply(x, scale)


class CBAM(nnx.Module):
    """Channel gate, then an optional spatial gate (CBAM).

    The default, ``no_spatial=True``, is the channel gate alone, as in the tutorial but unlike the authors' code, where
    ``no_spatial`` defaults to False. Pass ``no_spatial=False`` for CBAM as in the paper.

    Args:
        gate_channels: Number of channels.
        reduction_ratio: The channel gate's MLP has gate_channels // reduction_ratio hidden units.
        pool_types: The channel gate's pools, any of "avg", "max", "lp", "lse".
        no_spatial: Whether to leave out the spatial gate.
        mlp_bias: Whether the layers of the channel gate's MLP have biases.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the ratio leaves no hidden unit, or a pool type is unknown.

    Example:
        >>> CBAM(16, 4, no_spatial=False, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 16))).shape
        (2, 5, 7, 16)
    """

    def __init__(
        self,
        gate_channels: int,
        reduction_ratio: int = 16,
        pool_types: Sequence[str] = ("avg", "max"),
        no_spatial: bool = True,
        mlp_bias: bool = True,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        self.channel_gate = ChannelGate(gate_channels, reduction_ratio, pool_types, mlp_bias, rngs=rngs, **options)
        self.spatial_gate = nnx.data(None if no_spatial else SpatialGate(rngs=rngs, **options))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the gates to a map (b, h, w, gate_channels)."""
        x = self.channel_gate(x)
        return x if self.spatial_gate is None else self.spatial_gate(x)


def _flatten(x: jax.Array) -> jax.Array:
    return x  # in channels-last layout, pooled vectors are already flat
