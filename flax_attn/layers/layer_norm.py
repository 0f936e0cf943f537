"""``nnx.LayerNorm`` with PyTorch's eps and a two-pass variance."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from ..options import Options, check_options


class LayerNorm(nnx.LayerNorm):
    """Layer norm over the last axis, ``(x - mean) / sqrt(var + eps) * scale + bias`` (Ba, Kiros & Hinton 2016).

    Differs from ``nnx.LayerNorm``: eps defaults to 1e-5 (Flax: 1e-6), and the variance is E[(x - mean)^2]; Flax's
    default, E[x^2] - mean^2, loses precision.

    Args:
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> LayerNorm(3, rngs=nnx.Rngs(0))(jnp.array([[1.0, 2.0, 3.0]])).round(3).tolist()
        [[-1.225000023841858, 0.0, 1.225000023841858]]
    """

    def __init__(self, num_features: int, eps: float = 1e-5, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        super().__init__(
            num_features,
            epsilon=eps,
            dtype=options.get("dtype"),
            param_dtype=options.get("param_dtype", jnp.float32),
            use_fast_variance=False,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Normalises an array (..., num_features)."""
        with jax.numpy_dtype_promotion("standard"):  # for statistics in float32, where the setting is "strict"
            normed: jax.Array = super().__call__(x, mask=mask)
        return normed
