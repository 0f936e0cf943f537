"""Large kernel attention: a gate per pixel and channel from a kernel of 21 x 21 in three convolutions.

Guo, Lu, Liu, Cheng & Hu, "Visual attention network", CVMJ 2023: ``x * W dw7x7(dw5x5(x))``, where the second depthwise
kernel has dilation 3 and W mixes the channels; the network's block is ``x + P2 LKA(GELU(P1 x))``.

Differs from most gates: there is no sigmoid, so that the gate has no bounds.
"""

from functools import partial
from typing import Unpack

import jax
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import GELU, Conv
from ..options import Options, check_options


class LargeKernelAttention(nnx.Module):
    """Multiplies each value by a gate from depthwise convolutions and one over the channels, without a sigmoid (LKA).

    Args:
        dim: Number of channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``dim`` is below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> LargeKernelAttention(3, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 3))).shape
        (2, 5, 7, 3)
    """

    def __init__(self, dim: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(dim=dim)
        conv = partial(Conv, dim, dim, rngs=rngs, **options)
        self.dim, self.dtype = dim, options.get("dtype")
        self.conv0 = conv(5, padding=2, groups=dim)
        self.conv_spatial = conv(7, padding=9, dilation=3, groups=dim)
        self.conv1 = conv(1)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Multiplies a map (b, h, w, dim) by a gate of its shape."""
        check_shape("x", x, "b h w c", c=self.dim)
        x = ops.cast(x, self.dtype)
        gate = self.conv1(self.conv_spatial(self.conv0(x)))
        ops.record(self, "gate", gate)
        return ops.multiply(x, gate)


class VANAttention(nnx.Module):
    """Large kernel attention between two layers per pixel, with a skip connection around it (VAN).

    Args:
        d_model: Number of channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``d_model`` is below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> VANAttention(3, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 3))).shape
        (2, 5, 7, 3)
    """

    def __init__(self, d_model: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(d_model=d_model)
        conv = partial(Conv, d_model, d_model, 1, rngs=rngs, **options)
        self.d_model, self.dtype = d_model, options.get("dtype")
        self.proj_1 = conv()
        self.activation = GELU()
        self.spatial_gating_unit = LargeKernelAttention(d_model, rngs=rngs, **options)
        self.proj_2 = conv()

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to a map (b, h, w, d_model)."""
        check_shape("x", x, "b h w c", c=self.d_model)
        x = ops.cast(x, self.dtype)
        return ops.add(x, self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x)))))
