"""Efficient channel attention: a gate per channel, computed from neighbouring channels.

Wang, Wu, Zhu, Li, Zuo & Hu, "ECA-Net: efficient channel attention for deep convolutional neural networks", CVPR 2020:
``x * sigmoid(conv_k(mean of x over the map))`` with a convolution of width k along the channels, without bias. k is the
odd number nearest to ``|log2(c) + beta| / gamma`` (ties round up), and at least 3 (section 3.2.3).

Differs from the authors' code, which takes k as an argument: to load their checkpoints, pass ``kernel_size`` and no
``channels``; those of ECA-ResNet-50 have k = 3, 5, 5, 7 in its four stages, not what the formula gives. ``circular``
padding comes from timm's ``CecaModule``. fightingcv's ``ECAAttention`` adds a bias to the convolution.
"""

import math
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_odd, check_positive, check_shape
from ..layers import Conv
from ..options import Options, check_options


class EfficientChannelAttention(nnx.Module):
    """Scales each channel by a gate from a 1D convolution over the channels of the average-pooled map (ECA).

    Args:
        channels: Number of channels, which sets the kernel size. None uses ``kernel_size`` and accepts any number.
        kernel_size: Odd size of the kernel where ``channels`` is None; None is 3.
        gamma, beta: Coefficients in the formula for the kernel size.
        circular: Whether to pad the channel axis circularly instead of with zeros.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, ``kernel_size`` is even, or both ``channels`` and ``kernel_size`` are given.

    Example:
        >>> import jax.numpy as jnp
        >>> eca = EfficientChannelAttention(256, rngs=nnx.Rngs(0))
        >>> eca(jnp.ones((2, 5, 7, 256))).shape, eca.conv.kernel.shape
        ((2, 5, 7, 256), (5, 1, 1))
    """

    def __init__(
        self,
        channels: int | None = None,
        kernel_size: int | None = None,
        gamma: int = 2,
        beta: int = 1,
        circular: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        if channels is not None:
            check_positive(channels=channels, gamma=gamma)
            if kernel_size is not None:
                raise ValueError(f"kernel_size must be None unless channels is, which sets it, got {kernel_size}")
            width = int(abs(math.log2(channels) + beta) / gamma)
            kernel_size = max(width + (width + 1) % 2, 3)
        kernel_size = 3 if kernel_size is None else kernel_size
        check_odd(kernel_size=kernel_size)
        self.channels, self.circular, self.dtype = channels, circular, options.get("dtype")
        self.conv = Conv(
            1, 1, (kernel_size,), padding=0 if circular else kernel_size // 2, bias=False, rngs=rngs, **options
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, 1, 1, channels) to a map (b, h, w, channels)."""
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        pooled = ops.global_pool(x, "avg")[..., None]
        if self.circular:
            pad = self.conv.kernel_size[0] // 2
            pooled = jnp.pad(pooled, ((0, 0), (pad, pad), (0, 0)), mode="wrap")
        gate = ops.sigmoid(self.conv(pooled))[:, None, None, :, 0]
        ops.record(self, "gate", gate)
        return ops.multiply(x, gate)
