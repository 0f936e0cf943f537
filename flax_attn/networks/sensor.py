"""A convolutional network with spatial attention for windows of sensor data.

Four stages of [convolution (3, 1) with stride (2, 1) along time, `SpatialAttentionModule`, BatchNorm, ReLU] with
1 -> 64 -> 128 -> 256 -> 512 channels, the mean over time and a linear layer. The source tutorial does not specify
widths, kernel and stride; these are those of the published network it describes.

Differs from a plain Flax port: features are flattened channels first, as in PyTorch.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Unpack

import jax
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..blocks.spatial import SpatialAttentionModule
from ..layers import BatchNorm, Conv, Linear
from ..options import Options, check_options

WIDTHS = (1, 64, 128, 256, 512)


class SpatialAttentionNeuralNetwork(nnx.Module):
    """Classifies windows of sensor data with a CNN and spatial attention.

    Args:
        train_shape: Shape of the training windows; only the last entry, the number of sensors (modal), is used.
        category: Number of classes.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> network = SpatialAttentionNeuralNetwork((1000, 128, 9), 6, rngs=nnx.Rngs(0))
        >>> network(jnp.ones((2, 128, 9, 1))).shape
        (2, 6)
    """

    def __init__(
        self,
        train_shape: Sequence[int],
        category: int,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        if not isinstance(train_shape, Sequence) or not train_shape:
            raise ValueError(
                f"train_shape must be a shape whose last entry is the number of sensors, got {train_shape!r}"
            )
        modal = train_shape[-1]
        check_positive(**{"train_shape[-1]": modal, "category": category})
        norm = partial(BatchNorm, rngs=rngs, **options)
        stages: list[Callable[..., Any]] = []
        for narrow, wide in pairwise(WIDTHS):
            conv = Conv(narrow, wide, (3, 1), stride=(2, 1), padding=(1, 0), rngs=rngs, **options)
            stages += [conv, SpatialAttentionModule(rngs=rngs, **options), norm(wide), ops.relu]
        self.layer = nnx.Sequential(*stages)
        self.fc = Linear(WIDTHS[-1] * modal, category, rngs=rngs, **options)
        self.modal = modal

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps windows (b, series, modal, 1) to logits (b, category)."""
        check_shape("x", x, "b series modal c", c=1)
        pooled = ops.adaptive_avg_pool(self.layer(x), (1, self.modal))
        return self.fc(ops.flatten_channels_first(pooled))
