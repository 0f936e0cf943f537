"""``nnx.Linear`` with PyTorch's arguments and initialisation."""

from typing import Any, Unpack

import jax
from flax import nnx

from .._check import check_positive
from ..options import Options, check_options
from .bias import narrow, promote_all_but_bias, renamed
from .initializers import uniform_fan_in


class Linear(nnx.Linear):
    """Linear layer over the last axis, ``y = x @ kernel + bias``: (..., in_features) -> (..., out_features).

    Differs from ``nnx.Linear``: kernel and bias are drawn from U(+-1/sqrt(in_features)), and the bias is added in at
    least float32 (`flax_attn.layers.bias`).

    Args:
        in_features: Number of input features.
        out_features: Number of output features.
        bias: Whether to add a bias.
        use_bias: Deprecated name of ``bias``.
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> import jax.numpy as jnp
        >>> Linear(3, 5, rngs=nnx.Rngs(0))(jnp.ones((2, 3))).shape
        (2, 5)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        use_bias: bool | None = None,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(in_features=in_features, out_features=out_features)
        super().__init__(
            in_features,
            out_features,
            use_bias=renamed(bias, use_bias),
            kernel_init=uniform_fan_in(in_features),
            bias_init=uniform_fan_in(in_features),
            promote_dtype=promote_all_but_bias,
            rngs=rngs,
            **options,
        )

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Applies the layer to an array (..., in_features)."""
        with jax.numpy_dtype_promotion("standard"):  # for the bias, where the setting is "strict"
            return narrow(super().__call__(inputs, out_sharding), inputs, self)
