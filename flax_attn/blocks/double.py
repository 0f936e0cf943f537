"""Double attention: gathers features from all places of a map and distributes them to each place.

Chen, Kalantidis, Li, Yan & Feng, "A^2-Nets: double attention networks", NeurIPS 2018, equations 2 to 6, with 1x1
convolutions A, B and V of x: ``G_k = sum_n softmax_n(B_kn) A_n``, ``Z_n = sum_k softmax_k(V_kn) G_k``, and a last
convolution of Z.

Differs from

- the paper's network, which adds x to it.
- fightingcv's ``DoubleAttention``, whose softmaxes name no axis and so run over the batch: the output for an image
  depends on which others are in the batch.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import Conv
from ..options import Options, check_options


class DoubleAttention(nnx.Module):
    """Gathers features from all places of a map by attention, and distributes them by another (A^2-Net).

    Time and memory grow with the number of places, not with its square. `attention_maps` gives ``gather_weights``
    (b, 1, c_n, h * w) and ``distribute_weights`` (b, 1, h * w, c_n).

    Args:
        in_channels: Number of channels.
        c_m: Number of channels of the features.
        c_n: Number of features that are gathered.
        reconstruct: Whether a last convolution gives ``in_channels`` channels; otherwise there are ``c_m``.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> DoubleAttention(32, 16, 8, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(
        self,
        in_channels: int,
        c_m: int,
        c_n: int,
        reconstruct: bool = True,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(in_channels=in_channels, c_m=c_m, c_n=c_n)
        self.in_channels, self.dtype, self.precision = in_channels, options.get("dtype"), options.get("precision")
        self.convA = Conv(in_channels, c_m, 1, rngs=rngs, **options)
        self.convB = Conv(in_channels, c_n, 1, rngs=rngs, **options)
        self.convV = Conv(in_channels, c_n, 1, rngs=rngs, **options)
        self.conv_reconstruct = nnx.data(Conv(c_m, in_channels, 1, rngs=rngs, **options) if reconstruct else None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends within a map (b, h, w, in_channels)."""
        check_shape("x", x, "b h w c", c=self.in_channels)
        x = ops.cast(x, self.dtype)
        features, gather, distribute = (ops.map_to_tokens(conv(x)) for conv in (self.convA, self.convB, self.convV))
        gather, distribute = ops.softmax(gather, 1), ops.softmax(distribute, 2)
        ops.record(self, "gather_weights", jnp.swapaxes(gather, 1, 2)[:, None])
        ops.record(self, "distribute_weights", distribute[:, None])
        gathered = jnp.einsum("bnm,bnk->bkm", features, gather, precision=self.precision)
        out = jnp.einsum("bkm,bnk->bnm", gathered, distribute, precision=self.precision)
        out = ops.tokens_to_map(out, x.shape[1], x.shape[2])
        return out if self.conv_reconstruct is None else self.conv_reconstruct(out)
