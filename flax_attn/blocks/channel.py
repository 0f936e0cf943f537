"""Channel attention without a spatial gate.

The channel half of CBAM (Woo et al., ECCV 2018, equation 2) as 1x1 convolutions without bias:
``gate = sigmoid(fc2(relu(fc1(avg(x)))) + fc2(relu(fc1(max(x)))))``.

Differs from `ChannelGate`: no biases, and `ChannelAttention` only returns the gate. `UseAttentionModel` applies it.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_ratio, check_shape
from ..layers import Conv
from ..options import Options, check_options


class ChannelAttention(nnx.Module):
    """Computes a gate per channel from the average- and max-pooled map, without applying it.

    Args:
        in_planes: Number of channels.
        ratio: The hidden layer has in_planes // ratio channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the ratio leaves no hidden channel.

    Example:
        >>> ChannelAttention(40, rngs=nnx.Rngs(0))(jnp.ones((3, 5, 7, 40))).shape
        (3, 1, 1, 40)
    """

    def __init__(self, in_planes: int, ratio: int = 16, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(in_planes=in_planes)
        check_ratio("ratio", ratio, in_planes)
        conv = partial(Conv, kernel_size=(1, 1), bias=False, rngs=rngs, **options)
        self.in_planes = in_planes
        self.fc1 = conv(in_planes, in_planes // ratio)
        self.fc2 = conv(in_planes // ratio, in_planes)
        self.dtype = options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the gate (b, 1, 1, in_planes) of a map (b, h, w, in_planes)."""
        check_shape("x", x, "b h w c", c=self.in_planes)
        x = ops.cast(x, self.dtype)
        pooled = jnp.stack([ops.global_pool(x, "avg"), ops.global_pool(x, "max")], axis=1)[:, :, None]
        gate = ops.sigmoid(jnp.sum(self.fc2(ops.relu(self.fc1(pooled))), axis=1, keepdims=True))
        ops.record(self, "gate", gate)
        return gate


class UseAttentionModel(nnx.Module):
    """Scales each channel by its `ChannelAttention` gate.

    Args:
        in_planes: Number of channels.
        ratio: The hidden layer has in_planes // ratio channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the ratio leaves no hidden channel.

    Example:
        >>> UseAttentionModel(40, rngs=nnx.Rngs(0))(jnp.ones((3, 5, 7, 40))).shape
        (3, 5, 7, 40)
    """

    def __init__(self, in_planes: int, ratio: int = 16, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        self.channel_attention = ChannelAttention(in_planes, ratio, rngs=rngs, **options)
        self.dtype = options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the gate to a map (b, h, w, in_planes)."""
        return ops.multiply(ops.cast(x, self.dtype), self.channel_attention(x))
