"""Efficient local attention: a gate per row and a gate per column, from convolutions along the means.

Xu & Wan, "ELA: efficient local attention for deep convolutional neural networks", 2024:
``x * sigmoid(f(GN(conv_k(mean of each row)))) * sigmoid(f(GN(conv_k(mean of each column))))`` with depthwise
convolutions and a group norm over all channels and places, following timm, where ``f`` is SiLU.

Differs from the paper, which has no ``f``, so that its gates reach 0, while these never fall below 0.43.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_odd, check_positive, check_shape
from ..layers import Conv, GroupNorm
from ..options import Options, check_options


class EfficientLocalAttention(nnx.Module):
    """Scales each element by gates of its row and column, from convolutions along them (efficient local attention).

    Args:
        channels: Number of channels.
        kernel_size: Odd length of the kernels.
        bias: Whether the convolutions have biases.
        has_skip: Whether to add the input to the output.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a number is below 1, or ``kernel_size`` is even.

    Example:
        >>> EfficientLocalAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 7,
        bias: bool = False,
        has_skip: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(channels=channels)
        check_odd(kernel_size=kernel_size)
        conv = partial(Conv, channels, channels, groups=channels, bias=bias, rngs=rngs, **options)
        self.channels, self.has_skip, self.dtype = channels, has_skip, options.get("dtype")
        self.conv_h = conv((kernel_size, 1), padding=(kernel_size // 2, 0))
        self.conv_w = conv((1, kernel_size), padding=(0, kernel_size // 2))
        self.norm_h = GroupNorm(1, channels, rngs=rngs, **options)
        self.norm_w = GroupNorm(1, channels, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies gates (b, h, 1, channels) and (b, 1, w, channels) to a map (b, h, w, channels)."""
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        rows, columns = jnp.mean(x, axis=2, keepdims=True), jnp.mean(x, axis=1, keepdims=True)
        height_gate = ops.sigmoid(nnx.silu(self.norm_h(self.conv_h(rows))))
        width_gate = ops.sigmoid(nnx.silu(self.norm_w(self.conv_w(columns))))
        ops.record(self, "height_gate", height_gate)
        ops.record(self, "width_gate", width_gate)
        out = ops.multiply(ops.multiply(x, height_gate), width_gate)
        return out + x if self.has_skip else out
