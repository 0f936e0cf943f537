"""Point-wise spatial attention (YOLOv4's modified SAM).

Bochkovskiy, Wang & Liao, "YOLOv4: optimal speed and accuracy of object detection", 2020, section 3.4 and figure 5b:
``x * sigmoid(BN(conv1x1(x)))``, a gate per pixel *and* channel. Darknet's ``sam`` layer is the product alone.

Differs from CBAM's spatial gate: no pooling, and one gate per channel instead of one shared by all channels.
"""

from typing import Unpack

import jax
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import BatchNorm, Conv
from ..options import Options, check_options


class PointwiseSpatialAttention(nnx.Module):
    """Scales each element of a map by a gate from a 1x1 convolution (YOLOv4's modified SAM).

    Args:
        channels: Number of channels.
        bn: Whether to apply BatchNorm (eps 1e-5, momentum 0.1) after the convolution; without it, the convolution has a
            bias, as in Darknet.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``channels`` is below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> PointwiseSpatialAttention(3, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 3))).shape
        (2, 5, 7, 3)
    """

    def __init__(self, channels: int, bn: bool = True, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(channels=channels)
        self.channels = channels
        self.dtype = options.get("dtype")
        self.conv = Conv(channels, channels, (1, 1), bias=not bn, rngs=rngs, **options)
        self.bn = nnx.data(BatchNorm(channels, rngs=rngs, **options) if bn else None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate of the same shape to a map (b, h, w, channels)."""
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        gate = self.conv(x)
        if self.bn is not None:
            gate = self.bn(gate)
        gate = ops.sigmoid(gate)
        ops.record(self, "gate", gate)
        return x * gate
