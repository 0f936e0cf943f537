"""Selective kernels: convolutions with kernels of several sizes, weighted by channel according to the map.

Li, Wang, Hu & Yang, "Selective kernel networks", CVPR 2019: ``U_i = ReLU(BN(conv_i(x)))`` for each kernel,
``z = ReLU(BN(W mean(sum_i U_i)))``, ``sum_i a_i U_i`` with ``a = softmax over i of V_i z`` in each channel.

Differs from the paper, as timm's ``SelectiveKernel`` does, whose defaults these are:

- each kernel sees its own part of the channels; ``split_input=False`` gives all of them to all, as in the paper.
- the hidden width is ``out_channels / 16``, in multiples of 8; the paper has at least 32 (``rd_channels``).
- a kernel above 3x3 is a 3x3 one with a dilation, as in the paper's models; ``keep_3x3=False`` makes it full.

Differs from fightingcv's ``SKAttention``, another function: z is a linear layer's alone, and all layers have biases.
"""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import BatchNorm, Conv
from ..options import Options, check_options


class SelectiveKernel(nnx.Module):
    """Adds convolutions with kernels of several sizes, weighted per channel by a softmax over the kernels (SK).

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels; None for as many as of the input.
        kernel_size: Odd size of each kernel, at least 3; one number stands for two kernels of that size.
        stride: Stride of the convolutions.
        dilation: Dilation of the convolutions, a factor to the one of ``keep_3x3``.
        groups: Number of channel groups in each convolution.
        rd_ratio: The hidden width is ``rd_ratio * out_channels``, rounded to a multiple of ``rd_divisor``.
        rd_channels: Hidden width; None for that of ``rd_ratio``.
        rd_divisor: What divides the hidden width.
        keep_3x3: Whether kernels of size k are 3x3 kernels with dilation (k - 1) / 2.
        split_input: Whether the input's channels are split among the kernels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1 or ``rd_ratio`` not above 0, a kernel is even or below 3, ``groups`` does not
            divide the channels, or the kernels cannot split them evenly.

    Example:
        >>> SelectiveKernel(8, 6, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 8))).shape
        (2, 5, 7, 6)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int | Sequence[int] = (3, 5),
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        keep_3x3: bool = True,
        split_input: bool = True,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        out_channels = in_channels if out_channels is None else out_channels
        sizes = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size, kernel_size)
        check_positive(in_channels=in_channels, out_channels=out_channels, dilation=dilation)
        hidden = ops.reduced_width(out_channels, rd_ratio, rd_channels, rd_divisor, 0.9)
        if not sizes or any(size < 3 or size % 2 == 0 for size in sizes):
            raise ValueError(f"kernel_size must be odd and at least 3, or a sequence of such, got {kernel_size!r}")
        self.parts = len(sizes) if split_input else 1
        if in_channels % self.parts:
            raise ValueError(
                f"in_channels must be divisible by the {self.parts} kernels that split them, got {in_channels}"
            )
        path = partial(_Path, in_channels // self.parts, out_channels, stride, groups, rngs=rngs, **options)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.paths = nnx.List(
            [path(3, dilation * (size - 1) // 2) if keep_3x3 else path(size, dilation) for size in sizes]
        )
        self.attn = _Select(out_channels, len(sizes), hidden, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, h, w, in_channels) to (b, h / stride, w / stride, out_channels), rounded up."""
        check_shape("x", x, "b h w c", c=self.in_channels)
        parts = jnp.split(x, self.parts, axis=-1) * (len(self.paths) // self.parts)
        maps = jnp.stack([path(part) for path, part in zip(self.paths, parts, strict=True)], axis=1)
        weights = self.attn(jnp.mean(jnp.sum(maps, axis=1), axis=(1, 2), keepdims=True))
        ops.record(self, "weights", weights)
        return jnp.sum(ops.multiply(maps, weights[:, :, None, None]), axis=1)


class _Path(nnx.Module):
    """A convolution that keeps the size, BatchNorm and ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        groups: int,
        kernel_size: int,
        dilation: int,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        padding = dilation * (kernel_size - 1) // 2
        self.conv = Conv(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias=False,
            rngs=rngs,
            **options,
        )
        self.bn = BatchNorm(out_channels, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.relu(self.bn(self.conv(x)))


class _Select(nnx.Module):
    """From the pooled map (b, 1, 1, c) to weights (b, num_paths, c)."""

    def __init__(
        self, channels: int, num_paths: int, hidden: int, *, rngs: nnx.Rngs, **options: Unpack[Options]
    ) -> None:
        conv = partial(Conv, kernel_size=1, bias=False, rngs=rngs, **options)
        self.fc_reduce = conv(channels, hidden)
        self.bn = BatchNorm(hidden, rngs=rngs, **options)
        self.fc_select = conv(hidden, channels * num_paths)
        self.num_paths = num_paths

    def __call__(self, pooled: jax.Array) -> jax.Array:
        scores = self.fc_select(ops.relu(self.bn(self.fc_reduce(pooled))))
        return ops.softmax(jnp.reshape(scores, (pooled.shape[0], self.num_paths, -1)), axis=1)
