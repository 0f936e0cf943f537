"""A classifier behind channel attention: the gate, the mean over the map, a linear layer."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import PrecisionLike
from jax.typing import DTypeLike

from .._check import check_positive
from ..blocks.channel import UseAttentionModel
from ..layers import Linear


class ChannelAttentionClassifier(nnx.Module):
    """``logits = fc(mean over the map of x * channel_attention(x))``.

    Args:
        in_planes: channels.
        category: classes.
        ratio: the gate's hidden layer has in_planes // ratio channels.
        dtype: of the computation; that of inputs and parameters by default.
        param_dtype: of the parameters.
        precision: of the products.
        rngs: gives the ``params`` stream.

    Raises:
        ValueError: a size below 1, or a ratio that leaves no hidden channel.

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
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: PrecisionLike = None,
        rngs: nnx.Rngs,
    ) -> None:
        check_positive(category=category)
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision, "rngs": rngs}
        self.attention = UseAttentionModel(in_planes, ratio, **options)
        self.fc = Linear(in_planes, category, **options)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Classifies maps (b, h, w, in_planes).

        Returns:
            The logits (b, category) and the attended map (b, h, w, in_planes).

        Raises:
            ValueError: a shape that does not fit.
        """
        attended = self.attention(x)
        return self.fc(jnp.mean(attended, axis=(1, 2))), attended
