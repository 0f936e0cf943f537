"""Polarized self-attention: a channel gate from a softmax over places, a spatial gate from a softmax over channels.

Liu, Liu, Fan & Huang, "Polarized self-attention: towards high-quality pixel-wise regression", 2021, figure 2:
the channel gate is ``sigmoid(LN(Wz (Wv x . softmax over places of (wq x))))``, the spatial gate
``sigmoid(softmax over channels of (mean of Wq x) . Wv x)``. Either both scale the map and the results are added, or the
spatial gate is computed from, and scales, what the channel gate has scaled.

Differs from the authors' code, which is another function: no layer norm and no biases in the parallel form, a narrower
hidden layer in the sequential one, and a softmax over places in the spatial gate. Its checkpoints do not load.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import Conv, LayerNorm
from ..options import Options, check_options


class _Polarized(nnx.Module):
    """The layers of both forms, and their gates."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(minimum=2, channels=channels)
        conv = partial(Conv, kernel_size=1, rngs=rngs, **options)
        half = channels // 2
        self.channels, self.dtype, self.precision = channels, options.get("dtype"), options.get("precision")
        self.ch_wv = conv(channels, half)
        self.ch_wq = conv(channels, 1)
        self.ch_wz = conv(half, channels)
        self.ln = LayerNorm(channels, rngs=rngs, **options)
        self.sp_wv = conv(channels, half)
        self.sp_wq = conv(channels, half)

    def _prepared(self, x: jax.Array) -> jax.Array:
        check_shape("x", x, "b h w c", c=self.channels)
        return ops.cast(x, self.dtype)

    def _channel_gate(self, x: jax.Array) -> jax.Array:
        """A gate (b, 1, 1, channels): values averaged over the places, by weights that the places compete for."""
        scores, values = ops.map_to_tokens(self.ch_wq(x)), ops.map_to_tokens(self.ch_wv(x))
        pooled = jnp.einsum("bno,bnc->boc", ops.softmax(scores, 1), values, precision=self.precision)
        gate = ops.sigmoid(self.ln(self.ch_wz(pooled[:, None])))
        ops.record(self, "channel_gate", gate)
        return gate

    def _spatial_gate(self, x: jax.Array) -> jax.Array:
        """A gate (b, h, w, 1): values averaged over the channels, by weights that the channels compete for."""
        weights = ops.softmax(ops.global_pool(self.sp_wq(x), "avg"), 1)
        attended = jnp.einsum("bhwc,bc->bhw", self.sp_wv(x), weights, precision=self.precision)
        gate = ops.sigmoid(attended[..., None])
        ops.record(self, "spatial_gate", gate)
        return gate


class ParallelPolarizedSelfAttention(_Polarized):
    """Adds the map scaled per channel and the map scaled per pixel (polarized self-attention in parallel).

    Args:
        channels: Number of channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``channels`` is below 2.

    Example:
        >>> ParallelPolarizedSelfAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies gates (b, 1, 1, channels) and (b, h, w, 1) to a map (b, h, w, channels)."""
        x = self._prepared(x)
        return ops.multiply(x, self._channel_gate(x)) + ops.multiply(x, self._spatial_gate(x))


class SequentialPolarizedSelfAttention(_Polarized):
    """Scales the map per channel and the result per pixel (polarized self-attention in sequence).

    Args:
        channels: Number of channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``channels`` is below 2.

    Example:
        >>> SequentialPolarizedSelfAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies gates (b, 1, 1, channels) and (b, h, w, 1) to a map (b, h, w, channels)."""
        x = self._prepared(x)
        x = ops.multiply(x, self._channel_gate(x))
        return ops.multiply(x, self._spatial_gate(x))
