"""scSE: a squeeze-and-excitation gate per channel and a gate per pixel, side by side.

Roy, Navab & Wachinger, "Concurrent spatial and channel squeeze & excitation in fully convolutional networks", MICCAI
2018: ``x * sigmoid(W2 relu(W1 mean(x))) + x * sigmoid(w x)``. This is the sum of the conference paper and of
``segmentation_models_pytorch``; the authors' later code takes the elementwise maximum, ``combine="max"``, and half of
the channels for the hidden layer, ``reduction=2``.

Differs from the authors' code: 1x1 convolutions in place of linear layers, which have the same weights.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_choice, check_positive, check_ratio, check_shape
from ..layers import AdaptiveAvgPool, Conv
from ..options import Options, check_options


class SCSE(nnx.Module):
    """Adds the map scaled by a gate per channel and the map scaled by a gate per pixel (scSE).

    Args:
        in_channels: Number of channels.
        reduction: The channel gate has in_channels // reduction hidden units.
        combine: "add", or "max" for the larger of the two, element by element.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the ratio leaves no hidden unit, or ``combine`` is unknown.

    Example:
        >>> SCSE(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 16,
        combine: str = "add",
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(in_channels=in_channels)
        check_ratio("reduction", reduction, in_channels)
        check_choice("combine", combine, ("add", "max"))
        hidden = in_channels // reduction
        conv = partial(Conv, kernel_size=1, rngs=rngs, **options)
        self.in_channels, self.combine, self.dtype = in_channels, combine, options.get("dtype")
        self.cSE = nnx.Sequential(AdaptiveAvgPool(1), conv(in_channels, hidden), ops.relu, conv(hidden, in_channels))
        self.sSE = nnx.Sequential(conv(in_channels, 1))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies gates (b, 1, 1, in_channels) and (b, h, w, 1) to a map (b, h, w, in_channels)."""
        check_shape("x", x, "b h w c", c=self.in_channels)
        x = ops.cast(x, self.dtype)
        channel_gate, spatial_gate = ops.sigmoid(self.cSE(x)), ops.sigmoid(self.sSE(x))
        ops.record(self, "channel_gate", channel_gate)
        ops.record(self, "spatial_gate", spatial_gate)
        by_channel, by_place = ops.multiply(x, channel_gate), ops.multiply(x, spatial_gate)
        return by_channel + by_place if self.combine == "add" else jnp.maximum(by_channel, by_place)
