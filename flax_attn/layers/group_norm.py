"""``nnx.GroupNorm`` with PyTorch's arguments, eps and a two-pass variance."""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .._check import check_positive, check_shape
from ..options import Options, check_options


class GroupNorm(nnx.GroupNorm):
    """Normalises (b, ..., num_channels) over the positions and the channels of each group (Wu & He 2018).

    Differs from ``nnx.GroupNorm``: the number of groups comes first, eps defaults to 1e-5 (Flax: 1e-6), and the
    variance is E[(x - mean)^2]; Flax's default, E[x^2] - mean^2, loses precision.

    Args:
        num_groups: Number of groups; must divide ``num_channels``.
        num_channels: Number of channels.
        eps: Added to the variance.
        affine: Whether there are a scale and a bias per channel.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, or ``num_groups`` does not divide ``num_channels``.

    Example:
        >>> GroupNorm(2, 6, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 6))).shape
        (2, 5, 7, 6)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(f"num_groups must divide num_channels={num_channels}, got {num_groups}")
        super().__init__(
            num_channels,
            num_groups,
            epsilon=eps,
            dtype=options.get("dtype"),
            param_dtype=options.get("param_dtype", jnp.float32),
            use_bias=affine,
            use_scale=affine,
            use_fast_variance=False,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Normalises an array (b, ..., num_channels)."""
        check_shape(
            "x",
            x,
            " ".join(["b", *(f"axis_{i}" for i in range(1, x.ndim - 1)), "c"]),
            c=self.num_groups * self.group_size,
        )
        with jax.numpy_dtype_promotion("standard"):  # for statistics in float32, where the setting is "strict"
            normed: jax.Array = super().__call__(x, mask=mask)
        return normed
