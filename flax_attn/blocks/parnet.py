"""ParNet's block: two convolutions beside a skip connection that is gated by channel.

Goyal, Bochkovskiy, Deng & Koltun, "Non-deep networks", NeurIPS 2022: ``SiLU(BN(conv3x3(x)) + BN(conv1x1(x)) + s * g)``
with ``s = BN(x)`` and ``g = sigmoid(W mean of s over the map)``.

Differs from fightingcv's ``ParNetAttention``, where the skip connection is x itself and the layers have biases:
``skip_norm=False, bias=True``.
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


class ParNetAttention(nnx.Module):
    """Adds a 3x3 and a 1x1 convolution and the map itself, whose channels are gated from their means (ParNet).

    Args:
        channel: Number of channels.
        skip_norm: Whether BatchNorm comes before the gate, as in the paper.
        bias: Whether the convolutions and the layer of the gate have biases.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``channel`` is below 1.

    Example:
        >>> ParNetAttention(8, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 8))).shape
        (2, 5, 7, 8)
    """

    def __init__(
        self,
        channel: int = 512,
        skip_norm: bool = True,
        bias: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(channel=channel)
        self.channel, self.dtype = channel, options.get("dtype")
        self.rbr_identity = nnx.data(BatchNorm(channel, rngs=rngs, **options) if skip_norm else None)
        self.rbr_dense = _ConvNorm(channel, 3, bias, rngs=rngs, **options)
        self.rbr_1x1 = _ConvNorm(channel, 1, bias, rngs=rngs, **options)
        self.se = nnx.Dict(cvsig=nnx.Dict(conv=Conv(channel, channel, 1, bias=bias, rngs=rngs, **options)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to a map (b, h, w, channel)."""
        check_shape("x", x, "b h w c", c=self.channel)
        x = ops.cast(x, self.dtype)
        skip = x if self.rbr_identity is None else self.rbr_identity(x)
        gate = ops.sigmoid(self.se.cvsig.conv(jnp.mean(skip, axis=(1, 2), keepdims=True)))
        ops.record(self, "gate", gate)
        return nnx.silu(ops.add(self.rbr_dense(x) + self.rbr_1x1(x), ops.multiply(skip, gate)))


class _ConvNorm(nnx.Module):
    def __init__(
        self, channels: int, kernel_size: int, bias: bool, *, rngs: nnx.Rngs, **options: Unpack[Options]
    ) -> None:
        conv = partial(Conv, channels, channels, kernel_size, rngs=rngs, **options)
        self.conv = conv(padding=kernel_size // 2, bias=bias)
        self.bn = BatchNorm(channels, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        normed: jax.Array = self.bn(self.conv(x))
        return normed
