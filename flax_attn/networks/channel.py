"""A classifier with channel attention."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .._check import check_positive
from ..blocks.channel import UseAttentionModel
from ..layers import Linear
from ..options import Options, check_options


class ChannelAttentionClassifier(nnx.Module):
    """Classifies maps with channel attention, global average pooling and a linear layer.

    ``logits = fc(mean over the map of x * channel_attention(x))``.

    Args:
        in_planes: Number of channels.
        category: Number of classes.
        ratio: The gate's hidden layer has in_planes // ratio channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, or the ratio leaves no hidden channel.

    Example:
        >>> network = ChannelAttentionClassifier(40, 14, rngs=nnx.Rngs(0))
        >>> logits, attended = network(jnp.ones((2, 50, 30, 40)))
        >>> logits.shape, attended.shape
        ((2, 14), (2, 50, 30, 40))
    """

    def __init__(
        self,
        in_planes: int,
        category: int,
        ratio: int = 16,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(category=category)
        self.attention = UseAttentionModel(in_planes, ratio, rngs=rngs, **options)
        self.fc = Linear(in_planes, category, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Classifies maps (b, h, w, in_planes).

        Returns:
            The logits (b, category) and the attended map (b, h, w, in_planes).
        """
        attended = self.attention(x)
        return self.fc(jnp.mean(attended, axis=(1, 2))), attended
