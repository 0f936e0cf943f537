"""Strip attention: one gate from the means of an element's row and column.

``x * sigmoid(conv_k(mean of each row) + conv_k(mean of each column))`` with depthwise convolutions. It has no paper of
its own: it is timm's smallest gate after Hou, Zhang, Cheng & Feng, "Strip pooling", CVPR 2020, whose module has
convolutions across channels on both sides of the sum.

Differs from efficient local attention: one sigmoid of the sum in place of a product of two, no norm, no SiLU.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_odd, check_positive, check_shape
from ..layers import Conv
from ..options import Options, check_options


class StripAttention(nnx.Module):
    """Scales each element by a gate from the means of its row and its column (strip attention).

    Args:
        channels: Number of channels.
        use_conv: Whether depthwise convolutions run along the means; without them there are no parameters.
        kernel_size: Odd length of the kernels.
        bias: Whether the convolutions have biases.
        has_skip: Whether to add the input to the output.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a number is below 1, or ``kernel_size`` is even.

    Example:
        >>> StripAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(
        self,
        channels: int,
        use_conv: bool = True,
        kernel_size: int = 3,
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
        pad = kernel_size // 2
        self.channels, self.has_skip, self.dtype = channels, has_skip, options.get("dtype")
        self.conv_h = nnx.data(conv((kernel_size, 1), padding=(pad, 0)) if use_conv else None)
        self.conv_w = nnx.data(conv((1, kernel_size), padding=(0, pad)) if use_conv else None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate of the same shape to a map (b, h, w, channels)."""
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        rows, columns = jnp.mean(x, axis=2, keepdims=True), jnp.mean(x, axis=1, keepdims=True)
        if self.conv_h is not None:
            rows = self.conv_h(rows)
        if self.conv_w is not None:
            columns = self.conv_w(columns)
        gate = ops.sigmoid(ops.add(rows, columns))
        ops.record(self, "gate", gate)
        return x * gate + x if self.has_skip else x * gate
