"""Pyramid split attention: kernels of four sizes, whose results are weighed against one another.

Zhang, Zu, Lu, Zou & Meng, "EPSANet: an efficient pyramid squeeze attention block on convolutional neural network", ACCV
2022: ``F_i = conv_i(x)`` with a quarter of the channels for each kernel, ``Z = softmax over i of SE(F_i)`` with one
squeeze-and-excitation gate (a sigmoid) for all, and the ``Z_i * F_i`` side by side.

Differs from the paper, as the authors' code and checkpoints do: the four results stand in reverse order, that of the
last kernel first.

Differs from fightingcv's ``PSA``, which keeps its layers in plain lists: it has no parameters for an optimiser or a
checkpoint to find, and it writes the convolutions' results into its input.
"""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_ratio, check_shape
from ..layers import Conv
from ..options import Options, check_options


class PyramidSplitAttention(nnx.Module):
    """Joins convolutions with kernels of four sizes, weighted by a softmax over their squeeze-and-excite gates (PSA).

    Args:
        in_planes: Number of input channels.
        planes: Number of output channels, a multiple of 4.
        conv_kernels: Odd sizes of the four kernels.
        stride: Stride of the convolutions.
        conv_groups: Numbers of channel groups of the four convolutions.
        reduction: The gate has planes // 4 // reduction hidden units.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If there are not four kernels and groups, a kernel is even, the channels cannot be split, or the
            ratio leaves no hidden unit.

    Example:
        >>> psa = PyramidSplitAttention(8, 16, conv_groups=(1, 2, 4, 4), reduction=2, rngs=nnx.Rngs(0))
        >>> psa(jnp.ones((2, 5, 7, 8))).shape
        (2, 5, 7, 16)
    """

    def __init__(
        self,
        in_planes: int,
        planes: int,
        conv_kernels: Sequence[int] = (3, 5, 7, 9),
        stride: int = 1,
        conv_groups: Sequence[int] = (1, 4, 8, 16),
        reduction: int = 16,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(in_planes=in_planes, planes=planes)
        if planes % 4:
            raise ValueError(f"planes must be a multiple of 4, the number of kernels, got {planes}")
        if len(conv_kernels) != 4 or any(size < 1 or size % 2 == 0 for size in conv_kernels):
            raise ValueError(f"conv_kernels must be four odd numbers, got {conv_kernels!r}")
        if len(conv_groups) != 4:
            raise ValueError(f"conv_groups must be four numbers, got {conv_groups!r}")
        check_ratio("reduction", reduction, planes // 4)
        self.in_planes = in_planes
        conv = partial(Conv, in_planes, planes // 4, stride=stride, bias=False, rngs=rngs, **options)
        self.conv_1, self.conv_2, self.conv_3, self.conv_4 = (
            conv(size, padding=size // 2, groups=groups) for size, groups in zip(conv_kernels, conv_groups, strict=True)
        )
        self.se = _SqueezeExcite(planes // 4, reduction, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, h, w, in_planes) to (b, h / stride, w / stride, planes), rounded up."""
        check_shape("x", x, "b h w c", c=self.in_planes)
        maps = jnp.stack([conv(x) for conv in (self.conv_1, self.conv_2, self.conv_3, self.conv_4)], axis=3)
        weights = ops.softmax(self.se(jnp.mean(maps, axis=(1, 2))), axis=1)
        ops.record(self, "weights", weights)
        weighed = ops.multiply(maps, weights[:, None, None])[:, :, :, ::-1]
        return jnp.reshape(weighed, (*weighed.shape[:3], -1))


class _SqueezeExcite(nnx.Module):
    """Gates (b, 4, c) from the means (b, 4, c) of four maps."""

    def __init__(self, channels: int, reduction: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        conv = partial(Conv, kernel_size=1, rngs=rngs, **options)
        self.fc1, self.fc2 = conv(channels, channels // reduction), conv(channels // reduction, channels)

    def __call__(self, means: jax.Array) -> jax.Array:
        return ops.sigmoid(self.fc2(ops.relu(self.fc1(means[:, :, None])))[:, :, 0])
