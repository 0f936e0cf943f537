"""The gated channel transformation: a gate per channel from the channels' norms, with three numbers per channel.

Yang, Zhu, Wu & Yang, "Gated channel transformation for visual recognition", CVPR 2020:
``s = alpha * sqrt(sum of x^2 over the map + epsilon)``,
``x * (1 + tanh(gamma * s / sqrt(mean of s^2 over the channels + epsilon) + beta))``. By ``mode="l1"``
``s = alpha * sum |x|``, divided by ``mean |s| + epsilon``. The norms are sums, so that the size of the map matters. It
starts as the identity.

Differs from the authors' code: an unknown ``mode`` is refused before the first call.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_choice, check_positive, check_shape, is_number
from ..options import Options, check_options

MODES = ("l2", "l1")


class GatedChannelTransformation(nnx.Module):
    """Scales each channel by a gate between 0 and 2 from its norm relative to that of all channels (GCT).

    Args:
        num_channels: Number of channels.
        epsilon: Added under the roots of "l2" and to the mean of "l1"; above 0.
        mode: The norm, "l2" or "l1".
        after_relu: Whether "l1" sums the values as they are, which are none below 0 behind a ReLU.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the number of channels is below 1, ``epsilon`` is not above 0, or the mode is unknown.

    Example:
        >>> x = jnp.ones((2, 5, 7, 3))
        >>> bool((GatedChannelTransformation(3, rngs=nnx.Rngs(0))(x) == x).all())
        True
    """

    def __init__(
        self,
        num_channels: int,
        epsilon: float = 1e-5,
        mode: str = "l2",
        after_relu: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        del rngs  # unused: alpha starts at 1, gamma and beta at 0
        check_positive(num_channels=num_channels)
        check_choice("mode", mode, MODES)
        if not is_number(epsilon) or epsilon <= 0:
            raise ValueError(f"epsilon must be a finite number above 0, got {epsilon!r}")
        param_dtype = options.get("param_dtype", jnp.float32)
        self.num_channels, self.dtype = num_channels, options.get("dtype")
        self.epsilon, self.mode, self.after_relu = epsilon, mode, after_relu
        self.alpha = nnx.Param(jnp.ones(num_channels, param_dtype))
        self.gamma = nnx.Param(jnp.zeros(num_channels, param_dtype))
        self.beta = nnx.Param(jnp.zeros(num_channels, param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, 1, 1, num_channels) to a map (b, h, w, num_channels)."""
        check_shape("x", x, "b h w c", c=self.num_channels)
        x, alpha, gamma, beta = ops.promote(self.dtype, x, self.alpha[...], self.gamma[...], self.beta[...])
        wide = x.astype(ops.score_dtype(x.dtype))
        if self.mode == "l2":
            norm = jnp.sqrt(jnp.sum(jnp.square(wide), (1, 2), keepdims=True) + self.epsilon)
            embedding = ops.multiply(norm, alpha)
            size = jnp.sqrt(jnp.mean(jnp.square(embedding), -1, keepdims=True) + self.epsilon)
        else:
            norm = jnp.sum(wide if self.after_relu else ops.absolute(wide), (1, 2), keepdims=True)
            embedding = ops.multiply(norm, alpha)
            size = jnp.mean(ops.absolute(embedding), -1, keepdims=True) + self.epsilon
        gate = (1 + jnp.tanh(ops.add(ops.multiply(embedding / size, gamma), beta))).astype(x.dtype)
        ops.record(self, "gate", gate)
        return ops.multiply(x, gate)
