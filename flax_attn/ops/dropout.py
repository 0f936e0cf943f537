"""Dropout: draws keep-masks and applies them.

A mask depends only on (key, shape), and each element only on the key and its position, so results do not depend on how
a computation is split into blocks. `flax_attn.layers.Dropout` accepts any function of type `KeepMask` in place of
`keep_mask`; the parity harness uses this to give both frameworks the same masks.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014, as inverted dropout:
``y = x * keep / (1 - rate)`` with ``P(keep = 1) = 1 - rate``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

KeepMask = Callable[[jax.Array, float, tuple[int, ...]], jax.Array]


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Draws a boolean array of ``shape`` whose elements are False with probability ``rate``."""
    # In float32, since a Python float would draw different bits in 64-bit mode.
    return jax.random.bernoulli(key, np.float32(1.0 - rate), shape)


def dropout(x: jax.Array, keep: jax.Array, rate: float) -> jax.Array:
    """Zeroes the elements of ``x`` where ``keep`` is False and scales the others by 1 / (1 - rate).

    Example:
        >>> dropout(jnp.ones(4), jnp.array([True, False, True, True]), 0.5).tolist()
        [2.0, 0.0, 2.0, 2.0]
    """
    if rate == 1.0:
        return jnp.zeros_like(x)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))
