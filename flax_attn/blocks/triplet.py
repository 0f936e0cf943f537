"""Triplet attention: three gates, each from the map pooled over its rows, its columns or its channels.

Misra, Nalamada, Arasanipalai & Hou, "Rotate to attend: convolutional triplet attention module", WACV 2021: the mean of
``x * sigmoid(BN(conv7x7([max; mean])))`` with maximum and mean over one of the three axes and the convolution over the
plane of the other two. Over the channels it is CBAM's spatial gate.

Differs from many reimplementations: (max, mean) in this order, a maximum whose gradient goes to the first of ties, and
BatchNorm's momentum of 0.01, as in CBAM. The authors' ``cw`` is the gate over channels and columns and pools the rows;
``hc`` is the gate over rows and channels and pools the columns.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_shape
from ..options import Options, check_options
from .cbam import BasicConv, ChannelPool


class TripletAttention(nnx.Module):
    """Averages the map scaled by three gates, one for each pair of its axes (triplet attention).

    It has 300 parameters, whatever the number of channels.

    Args:
        no_spatial: Whether to leave out the third gate, over rows and columns.
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> TripletAttention(rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 3))).shape
        (2, 5, 7, 3)
    """

    def __init__(self, no_spatial: bool = False, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        self.cw = _Gate(rngs=rngs, **options)
        self.hc = _Gate(rngs=rngs, **options)
        self.hw = nnx.data(None if no_spatial else _Gate(rngs=rngs, **options))
        self.dtype = options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies gates (b, 1, w, c), (b, h, 1, c) and (b, h, w, 1) to a map (b, h, w, c)."""
        check_shape("x", x, "b h w c")
        x = ops.cast(x, self.dtype)
        gates = {
            "width_gate": jnp.swapaxes(self.cw(jnp.swapaxes(x, 1, 3)), 1, 3),
            "height_gate": jnp.swapaxes(self.hc(jnp.swapaxes(x, 2, 3)), 2, 3),
        }
        if self.hw is not None:
            gates["spatial_gate"] = self.hw(x)
        out = jnp.zeros((), x.dtype)
        for name, gate in gates.items():
            ops.record(self, name, gate)
            out = ops.add(ops.multiply(x, gate), out)
        return out / len(gates)


class _Gate(nnx.Module):
    """A gate over two axes (b, h, w, 1) of an array, from the maximum and the mean over the last."""

    def __init__(self, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        self.compress = ChannelPool(rngs=rngs, **options)
        self.conv = BasicConv(2, 1, 7, padding=3, relu=False, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.sigmoid(self.conv(self.compress(x)))
