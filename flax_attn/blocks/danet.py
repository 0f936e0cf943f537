"""Position and channel attention of DANet.

Fu, Liu, Tian, Li, Bao, Fang & Lu, "Dual attention network for scene segmentation", CVPR 2019:
``x + gamma * A x``, where A is a softmax over all places of ``q_n . k_m``, without a scale, and x behind it ``v``; or
over all channels of ``-x_i . x_j``, without parameters but gamma.

Differs from

- the paper: its channel attention has ``+x_i . x_j``. The authors' code, and so every checkpoint, subtracts each energy
  from the largest one, so that the least similar channels weigh most.
- pytorchcv: its gamma is called ``scale.alpha`` and starts at 1.
- fightingcv's ``DAModule``: it has 512 channels and 7x7 places whatever its arguments say, and has neither gamma nor x
  in its sum. It loads nothing of the authors'.
- the network, which sums both outputs between 3x3 convolutions that halve the channels twice.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import Conv
from ..options import Options, check_options


class DANetPositionAttention(nnx.Module):
    """Adds to each place of a map a weighted mean over all places (position attention of DANet).

    It starts as the identity, as gamma is 0.

    Args:
        in_dim: Number of channels, at least 8; queries and keys have an eighth of them.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``in_dim`` is below 8.

    Example:
        >>> DANetPositionAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(self, in_dim: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(8, in_dim=in_dim)
        self.in_dim = in_dim
        self.dtype, self.precision = options.get("dtype"), options.get("precision")
        self.query_conv = Conv(in_dim, in_dim // 8, 1, rngs=rngs, **options)
        self.key_conv = Conv(in_dim, in_dim // 8, 1, rngs=rngs, **options)
        self.value_conv = Conv(in_dim, in_dim, 1, rngs=rngs, **options)
        self.gamma = nnx.Param(jnp.zeros(1, options.get("param_dtype", jnp.float32)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends within a map (b, h, w, in_dim)."""
        check_shape("x", x, "b h w c", c=self.in_dim)
        x = ops.cast(x, self.dtype)
        query, key, value = (
            ops.map_to_tokens(conv(x))[:, :, None] for conv in (self.query_conv, self.key_conv, self.value_conv)
        )
        out, weights = ops.dot_product_attention(
            query, key, value, temperature=1.0, need_weights=ops.is_recording(self), precision=self.precision
        )
        if weights is not None:
            ops.record(self, "weights", weights)
        return ops.cast(ops.add(x, ops.multiply(out.reshape(x.shape), self.gamma[...])), self.dtype)


class DANetChannelAttention(nnx.Module):
    """Adds to each channel of a map a weighted mean of all channels, least similar first (channel attention of DANet).

    It starts as the identity, as gamma is 0.

    Args:
        in_dim: Number of channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``in_dim`` is below 1.

    Example:
        >>> DANetChannelAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(self, in_dim: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(in_dim=in_dim)
        del rngs  # unused: gamma starts at 0
        self.in_dim = in_dim
        self.dtype, self.precision = options.get("dtype"), options.get("precision")
        self.gamma = nnx.Param(jnp.zeros(1, options.get("param_dtype", jnp.float32)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends between the channels of a map (b, h, w, in_dim)."""
        check_shape("x", x, "b h w c", c=self.in_dim)
        x = ops.cast(x, self.dtype)
        channels = jnp.swapaxes(ops.map_to_tokens(x), 1, 2)[:, :, None]
        # The softmax of largest - energy is that of -energy.
        out, weights = ops.dot_product_attention(
            channels,
            channels,
            channels,
            temperature=-1.0,
            need_weights=ops.is_recording(self),
            precision=self.precision,
        )
        if weights is not None:
            ops.record(self, "weights", weights)
        attended = jnp.swapaxes(out[:, :, 0], 1, 2).reshape(x.shape)
        return ops.cast(ops.add(x, ops.multiply(attended, self.gamma[...])), self.dtype)
