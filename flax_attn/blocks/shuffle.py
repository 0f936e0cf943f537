"""Shuffle attention: in each group of channels, half of them get a gate per channel, the other half one per element.

Zhang & Yang, "SA-Net: shuffle attention for deep convolutional neural networks", ICASSP 2021: with the two halves
``x1`` and ``x2`` of a group, ``x1 * sigmoid(a mean(x1) + b)`` and ``x2 * sigmoid(c GN(x2) + d)``; then the first and
the second half of *all* channels are interleaved, so that information crosses the groups.

Differs from what the names suggest: the groups share all parameters, and the group norm has one channel per group, so
it normalises each channel by its own mean and variance over the map. The authors' code has 64 groups by default.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import GroupNorm
from ..options import Options, check_options


class ShuffleAttention(nnx.Module):
    """Gates half of each group per channel and half per element, then shuffles the channels (shuffle attention).

    At first every gate is sigmoid(1), whatever the input.

    Args:
        channels: Number of channels.
        groups: Number of groups of channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a number is below 1, or 2 * groups does not divide ``channels``.

    Example:
        >>> ShuffleAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(self, channels: int, groups: int = 8, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(channels=channels, groups=groups)
        if channels % (2 * groups):
            raise ValueError(f"2 * groups must divide channels={channels}, got groups={groups}")
        half = channels // (2 * groups)
        param_dtype = options.get("param_dtype", jnp.float32)
        self.channels, self.groups, self.dtype = channels, groups, options.get("dtype")
        self.cweight = nnx.Param(jnp.zeros(half, param_dtype))
        self.cbias = nnx.Param(jnp.ones(half, param_dtype))
        self.sweight = nnx.Param(jnp.zeros(half, param_dtype))
        self.sbias = nnx.Param(jnp.ones(half, param_dtype))
        self.gn = GroupNorm(half, half, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, h, w, channels) to a map of the same shape and shuffles the channels of the result."""
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        b, h, w, c = x.shape
        halves = jnp.reshape(x, (b, h, w, self.groups, 2, -1))
        first, second = halves[..., 0, :], halves[..., 1, :]
        pooled = jnp.mean(first, axis=(1, 2), keepdims=True)
        channel_gate = ops.sigmoid(self._affine(pooled, self.cweight, self.cbias))
        spatial_gate = ops.sigmoid(self._affine(self._normalised(second), self.sweight, self.sbias))
        if ops.is_recording(self):
            gate = jnp.stack([jnp.broadcast_to(channel_gate, spatial_gate.shape), spatial_gate], axis=4)
            ops.record(self, "gate", jnp.reshape(gate, (b, h, w, c)))
        out = jnp.stack([ops.multiply(first, channel_gate), second * spatial_gate], axis=4)
        return jnp.reshape(jnp.swapaxes(jnp.reshape(out, (b, h, w, 2, -1)), 3, 4), (b, h, w, c))

    def _normalised(self, x: jax.Array) -> jax.Array:
        """Normalises (b, h, w, groups, half) over the map."""
        b, h, w, groups, half = x.shape
        normed = self.gn(jnp.reshape(jnp.moveaxis(x, 3, 1), (b * groups, h, w, half)))
        return jnp.moveaxis(jnp.reshape(normed, (b, groups, h, w, half)), 1, 3)

    def _affine(self, x: jax.Array, weight: nnx.Param[jax.Array], bias: nnx.Param[jax.Array]) -> jax.Array:
        weighted = ops.multiply(x, ops.cast(weight[...], self.dtype))
        return ops.add(weighted, ops.cast(bias[...], self.dtype))
