"""Spatial attention for windows of sensor data.

``x * sigmoid(conv3x1(mean_c x))`` on (b, series, modal, c): the kernel spans three time steps and one sensor, so each
sensor's gate is independent of the others.

Differs from CBAM's spatial gate: no channel maximum, no BatchNorm, a bias, and a kernel along time only.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_shape
from ..layers import Conv
from ..options import Options, check_options


class SpatialAttentionModule(nnx.Module):
    """Scales each (time, sensor) position by a gate from the channel mean, convolved along time.

    Args:
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> SpatialAttentionModule(rngs=nnx.Rngs(0))(jnp.ones((2, 11, 3, 5))).shape
        (2, 11, 3, 5)
    """

    def __init__(self, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        conv = Conv(1, 1, (3, 1), padding=(1, 0), rngs=rngs, **options)
        self.att_fc = nnx.Sequential(conv, ops.sigmoid)
        self.dtype = options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, series, modal, 1) to windows (b, series, modal, c)."""
        check_shape("x", x, "b series modal c")
        x = ops.cast(x, self.dtype)
        gate: jax.Array = self.att_fc(jnp.mean(x, axis=-1, keepdims=True))
        ops.record(self, "gate", gate)
        return ops.multiply(x, gate)
