"""LayerNorm: ``nnx.LayerNorm`` with PyTorch's eps and the two-pass variance."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike


class LayerNorm(nnx.LayerNorm):
    """``(x - mean) / sqrt(var + eps) * scale + bias`` over the last axis (Ba, Kiros & Hinton 2016).

    Differs from ``nnx.LayerNorm``: eps is 1e-5 unless given (Flax 1e-6), and the variance is E[(x - mean)^2], where
    Flax's default E[x^2] - mean^2 loses digits.

    Example:
        >>> LayerNorm(3, rngs=nnx.Rngs(0))(jnp.array([[1.0, 2.0, 3.0]])).round(3).tolist()
        [[-1.225000023841858, 0.0, 1.225000023841858]]
    """

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            num_features,
            epsilon=eps,
            dtype=dtype,
            param_dtype=param_dtype,
            use_fast_variance=False,
            rngs=rngs,
        )
