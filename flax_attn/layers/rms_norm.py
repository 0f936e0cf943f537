"""Root-mean-square norm with PyTorch's arguments."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive
from ..ops.dtype import promoted
from ..options import Options, check_options


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis, ``x / sqrt(mean(x^2) + eps) * scale`` (Zhang & Sennrich 2019).

    Args:
        num_features: Number of features.
        eps: Added to the mean of squares; None for the distance from 1 to the next number of the computation's dtype.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``num_features`` is below 1.

    Example:
        >>> RMSNorm(2, rngs=nnx.Rngs(0))(jnp.array([[0.0, 7.0]])).round(3).tolist()[0][0]
        0.0
    """

    def __init__(
        self, num_features: int, eps: float | None = None, *, rngs: nnx.Rngs, **options: Unpack[Options]
    ) -> None:
        check_options(self, options)
        check_positive(num_features=num_features)
        del rngs  # unused: the scale starts at 1
        self.scale = nnx.Param(jnp.ones(num_features, options.get("param_dtype", jnp.float32)))
        self.eps = eps
        self.dtype = options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises an array (..., num_features)."""
        dtype = self.dtype or promoted(x.dtype, self.scale.dtype)
        wide = x.astype(ops.score_dtype(dtype))
        eps = jnp.finfo(wide.dtype).eps if self.eps is None else self.eps
        normed = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
        return (normed * ops.with_rank(self.scale[...].astype(wide.dtype), x.ndim)).astype(dtype)
