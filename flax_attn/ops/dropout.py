"""Dropout: the one place where a keep-mask is drawn and applied.

A mask is a function of (key, shape) alone and its element at a position depends on the key and that position, so a
result does not depend on how a computation is cut into blocks. `flax_attn.layers.Dropout` takes any function of the
type `KeepMask` in place of `keep_mask`; the parity harness hands both frameworks the same masks that way.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014, in the inverted form:
``y = x * keep / (1 - rate)`` with ``P(keep = 1) = 1 - rate``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

KeepMask = Callable[[jax.Array, float, tuple[int, ...]], jax.Array]


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Draws a boolean array of ``shape`` whose elements are False with probability ``rate``."""
    # A float32 probability: under 64-bit mode a Python float would draw other bits.
    return jax.random.bernoulli(key, np.float32(1.0 - rate), shape)


def dropout(x: jax.Array, keep: jax.Array, rate: float) -> jax.Array:
    """Zeroes the elements of ``x`` that ``keep`` leaves out and scales the others by 1 / (1 - rate).

    Example:
        >>> dropout(jnp.ones(4), jnp.array([True, False, True, True]), 0.5).tolist()
        [2.0, 0.0, 2.0, 2.0]
    """
    if rate == 1.0:
        return jnp.zeros_like(x)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))
