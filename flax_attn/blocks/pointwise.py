"""Point-wise spatial attention, the form around Darknet's ``sam`` layer.

Bochkovskiy, Wang & Liao, "YOLOv4: optimal speed and accuracy of object detection", 2020, section 3.4 and figure 5b:
``x * sigmoid(BN(conv1x1(x)))``, a gate per pixel *and* channel. Darknet's layer itself is the product alone.

Differs from CBAM's spatial gate: no pooling, and one gate per channel instead of one for all.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import PrecisionLike
from jax.typing import DTypeLike

from .. import ops
from .._check import check_positive, check_shape
from ..layers import BatchNorm, Conv


class PointwiseSpatialAttention(nnx.Module):
    """Scales every element of a map.

    Args:
        channels: channels.
        bn: whether a BatchNorm (eps 1e-5, momentum 0.1) follows the convolution; without it the convolution has a bias,
            as in Darknet.
        dtype: of the computation; that of inputs and parameters by default.
        param_dtype: of the parameters.
        precision: of the convolution.
        rngs: gives the ``params`` stream.

    Raises:
        ValueError: fewer channels than 1.

    Example:
        >>> PointwiseSpatialAttention(3, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 3))).shape
        (2, 5, 7, 3)
    """

    def __init__(
        self,
        channels: int,
        bn: bool = True,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: PrecisionLike = None,
        rngs: nnx.Rngs,
    ) -> None:
        check_positive(channels=channels)
        self.channels = channels
        self.dtype = dtype
        self.conv = Conv(
            channels,
            channels,
            (1, 1),
            use_bias=not bn,
            dtype=dtype,
            param_dtype=param_dtype,
            precision=precision,
            rngs=rngs,
        )
        self.bn = nnx.data(BatchNorm(channels, dtype=dtype, param_dtype=param_dtype, rngs=rngs) if bn else None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Gates a map (b, h, w, channels); the gate has the map's shape.

        Raises:
            ValueError: a shape that does not fit.
        """
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        gate = self.conv(x)
        if self.bn is not None:
            gate = self.bn(gate)
        gate = ops.sigmoid(gate)
        ops.record(self, "gate", gate)
        return x * gate
