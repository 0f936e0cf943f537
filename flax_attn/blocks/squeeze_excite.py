"""Squeeze-and-excitation: a gate per channel from the average-pooled map.

Hu, Shen & Sun, "Squeeze-and-excitation networks", CVPR 2018: ``x * sigmoid(fc2(relu(fc1(mean of x over the map))))``.
Lee & Park, "CenterMask: real-time anchor-free instance segmentation", CVPR 2020, have one layer without a reduction in
its place and a hard sigmoid: ``x * min(max(fc(mean) + 3, 0), 6) / 6``.

Differs from the paper: the hidden layer is as wide as in timm, a multiple of ``rd_divisor`` and at least that, so that
64 channels have 8 hidden units and not 4. To load weights of another width, pass ``rd_channels``;
``rd_channels=channels // 16`` is the paper's.

Differs from timm's: without its experiments, a maximum beside the mean and a norm between the layers.
"""

from functools import partial
from typing import Unpack

import jax
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import Conv
from ..options import Options, check_options


class SqueezeExcite(nnx.Module):
    """Scales each channel by a gate that an MLP with one hidden layer computes from the average-pooled map (SE).

    Args:
        channels: Number of channels.
        rd_ratio: Number of hidden channels over ``channels``, rounded to a multiple of ``rd_divisor``.
        rd_channels: Number of hidden channels, in place of ``rd_ratio``.
        rd_divisor: What the number of hidden channels is a multiple of, and at least.
        bias: Whether the two layers have biases.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a number of channels is below 1, or ``rd_ratio`` is not above 0.

    Example:
        >>> import jax.numpy as jnp
        >>> block = SqueezeExcite(64, rngs=nnx.Rngs(0))
        >>> block(jnp.ones((2, 5, 7, 64))).shape, block.fc1.out_features
        ((2, 5, 7, 64), 8)
    """

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        bias: bool = True,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        hidden = ops.reduced_width(channels, rd_ratio, rd_channels, rd_divisor)
        conv = partial(Conv, kernel_size=1, bias=bias, rngs=rngs, **options)
        self.channels, self.dtype = channels, options.get("dtype")
        self.fc1 = conv(channels, hidden)
        self.fc2 = conv(hidden, channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, 1, 1, channels) to a map (b, h, w, channels)."""
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        pooled = ops.global_pool(x, "avg")[:, None, None]
        gate = ops.sigmoid(self.fc2(ops.relu(self.fc1(pooled))))
        ops.record(self, "gate", gate)
        return ops.multiply(x, gate)


class EffectiveSqueezeExcite(nnx.Module):
    """Scales each channel by a hard-sigmoid gate from one linear layer of the average-pooled map (eSE).

    Args:
        channels: Number of channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the number of channels is below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> EffectiveSqueezeExcite(6, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 6))).shape
        (2, 5, 7, 6)
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(channels=channels)
        self.channels, self.dtype = channels, options.get("dtype")
        self.fc = Conv(channels, channels, 1, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, 1, 1, channels) to a map (b, h, w, channels)."""
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        gate = ops.hard_sigmoid(self.fc(ops.global_pool(x, "avg")[:, None, None]))
        ops.record(self, "gate", gate)
        return ops.multiply(x, gate)
