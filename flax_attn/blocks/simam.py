"""SimAM: a gate per element, without parameters, from how far it stands out of its channel.

Yang, Zhang, Li & Xie, "SimAM: a simple, parameter-free attention module for convolutional neural networks", ICML 2021:
``x * sigmoid((x - mean)^2 / (4 (var + e_lambda)) + 1/2)``, the mean and the unbiased variance over the map per channel.

Differs from the authors' code: a map of one pixel, whose variance is undefined, is refused; there it gives NaN. Their
argument ``channels``, which is unused, is left out.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_several_pixels, check_shape, is_number
from ..options import Options, check_options


class SimAM(nnx.Module):
    """Scales each element by a gate from its squared distance to its channel's mean, without parameters (SimAM).

    Args:
        e_lambda: Added to the variance, at least 0.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``e_lambda`` is below 0, or a map has a single pixel.

    Example:
        >>> SimAM(rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 3))).shape
        (2, 5, 7, 3)
    """

    def __init__(self, e_lambda: float = 1e-4, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        del rngs  # unused: there are no parameters
        if not is_number(e_lambda) or e_lambda < 0:
            raise ValueError(f"e_lambda must be a finite number >= 0, got {e_lambda!r}")
        self.e_lambda, self.dtype = e_lambda, options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, h, w, c) to a map (b, h, w, c)."""
        check_shape("x", x, "b h w c")
        check_several_pixels("x", x)
        x = ops.cast(x, self.dtype)
        wide = x.astype(ops.score_dtype(x.dtype))
        squares = jnp.square(wide - jnp.mean(wide, (1, 2), keepdims=True))
        variance = jnp.var(wide, (1, 2), ddof=1, keepdims=True)
        gate = ops.sigmoid(squares / (4 * (variance + self.e_lambda)) + 0.5).astype(x.dtype)
        ops.record(self, "gate", gate)
        return ops.multiply(x, gate)
