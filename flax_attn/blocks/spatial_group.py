"""Spatial group-wise enhancement: a gate per pixel and group of channels.

Li, Hu & Yang, "Spatial group-wise enhance: improving semantic feature learning in convolutional networks", 2019. In
each group, with ``d = <x, mean of x over the map>`` per pixel,
``x * sigmoid(weight * (d - mean d) / (std d + 1e-5) + bias)``.

The deviation is unbiased, and 1e-5 is added to it and not to the variance. Where it is 0, its gradient is 0.

Differs from the authors' code: a map of one pixel, whose deviation is undefined, is refused; there it gives NaN.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_several_pixels, check_shape
from ..options import Options, check_options


class SpatialGroupEnhance(nnx.Module):
    """Scales each pixel of a group of channels by a gate from its likeness to the group's average-pooled vector (SGE).

    Args:
        groups: Number of groups; must divide the channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``groups`` is below 1 or does not divide the channels, or a map has a single pixel.

    Example:
        >>> SpatialGroupEnhance(3, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 6))).shape
        (2, 5, 7, 6)
    """

    def __init__(self, groups: int = 64, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        del rngs  # unused: the weight starts at 0 and the bias at 1
        check_positive(groups=groups)
        param_dtype = options.get("param_dtype", jnp.float32)
        self.groups, self.dtype = groups, options.get("dtype")
        self.weight = nnx.Param(jnp.zeros(groups, param_dtype))
        self.bias = nnx.Param(jnp.ones(groups, param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, h, w, groups), the same for all channels of a group, to a map (b, h, w, c)."""
        check_shape("x", x, "b h w c")
        check_several_pixels("x", x)
        b, h, w, c = x.shape
        if c % self.groups:
            raise ValueError(f"groups must divide the {c} channels of x, got {self.groups}")
        x, weight, bias = ops.promote(self.dtype, x, self.weight[...], self.bias[...])
        parts = jnp.reshape(x, (b, h, w, self.groups, -1))
        wide = parts.astype(ops.score_dtype(x.dtype))
        likeness = jnp.sum(wide * jnp.mean(wide, (1, 2), keepdims=True), -1)
        centred = likeness - jnp.mean(likeness, (1, 2), keepdims=True)
        normed = centred / (ops.safe_std(centred, (1, 2), keepdims=True) + 1e-5)
        gate = ops.sigmoid(ops.add(ops.multiply(normed, weight), bias)).astype(x.dtype)
        ops.record(self, "gate", gate)
        return jnp.reshape(ops.multiply(parts, gate[..., None]), x.shape)
