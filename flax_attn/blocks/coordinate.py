"""Coordinate attention: a gate per row and a gate per column, computed together from the means of both.

Hou, Zhou & Feng, "Coordinate attention for efficient mobile network design", CVPR 2021:
``f = hard_swish(BN(W1 [mean of each row; mean of each column]))``, whose places are then parted again, and
``x * sigmoid(W_h f_rows) * sigmoid(W_w f_columns)``. BatchNorm sees the h + w places of an image side by side.

Differs from the authors' code: the output has as many channels as the input, without an argument of its own. timm's
``CoordAttn`` has no biases and other hidden widths: pass ``bias=False`` and ``rd_channels``; ``has_skip`` is its own.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import BatchNorm, Conv
from ..options import Options, check_options


class CoordinateAttention(nnx.Module):
    """Scales each element by the gates of its row and its column, which share a hidden layer (coordinate attention).

    Args:
        channels: Number of channels.
        reduction: The hidden layer has channels // reduction channels, but at least 8.
        rd_channels: Number of channels of the hidden layer, in place of what ``reduction`` gives.
        bias: Whether the convolutions have biases.
        has_skip: Whether to add the input to the output.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> CoordinateAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 32,
        rd_channels: int | None = None,
        bias: bool = True,
        has_skip: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(channels=channels, reduction=reduction)
        hidden = max(8, channels // reduction) if rd_channels is None else rd_channels
        check_positive(rd_channels=hidden)
        conv = partial(Conv, kernel_size=1, bias=bias, rngs=rngs, **options)
        self.channels, self.has_skip, self.dtype = channels, has_skip, options.get("dtype")
        self.conv1 = conv(channels, hidden)
        self.bn1 = BatchNorm(hidden, rngs=rngs, **options)
        self.conv_h = conv(hidden, channels)
        self.conv_w = conv(hidden, channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies gates (b, h, 1, channels) and (b, 1, w, channels) to a map (b, h, w, channels)."""
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        rows, columns = jnp.mean(x, axis=2), jnp.mean(x, axis=1)
        places = jnp.concatenate([rows, columns], axis=1)[:, :, None]
        places = ops.hard_swish(self.bn1(self.conv1(places)))
        h = x.shape[1]
        height_gate = ops.sigmoid(self.conv_h(places[:, :h]))
        width_gate = ops.sigmoid(self.conv_w(jnp.swapaxes(places[:, h:], 1, 2)))
        ops.record(self, "height_gate", height_gate)
        ops.record(self, "width_gate", width_gate)
        out = ops.multiply(ops.multiply(x, height_gate), width_gate)
        return out + x if self.has_skip else out
