"""Dropout: draws keep-masks and applies them.

A mask depends only on (key, shape), and each element only on the key and its position, so results do not depend on how
a computation is split into blocks. `flax_attn.layers.Dropout` accepts any function of type `KeepMask` in place of
`keep_mask`; the parity harness uses this to give both frameworks the same masks.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014, as inverted dropout:
``y = x * keep / (1 - rate)`` with ``P(keep = 1) = 1 - rate``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32

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


@dataclass(frozen=True)
class DropoutDraw:
    """One draw of dropout, as a function of the array that it is applied to.

    `dot_product_attention` can apply it to weights that it never holds at once.

    Example:
        >>> draw = DropoutDraw(jax.random.key(0), 0.5)
        >>> bool((draw(jnp.ones(9)) == draw(jnp.ones(9))).all())
        True
    """

    key: jax.Array
    rate: float
    keep_mask: KeepMask = keep_mask

    def __call__(self, x: jax.Array) -> jax.Array:
        return dropout(x, self.keep_mask(self.key, self.rate, x.shape), self.rate)

    @property
    def words(self) -> jax.Array | None:
        """What `keep_at` takes of the key; None where it could not tell the elements of ``keep_mask``."""
        threefry = jax.random.key_impl(self.key) == "threefry2x32" and jax.config.values["jax_threefry_partitionable"]
        return jax.random.key_data(self.key) if threefry and self.keep_mask is keep_mask else None


def keep_at(words: jax.Array, rate: float, row: jax.Array, column: jax.Array, columns: int) -> jax.Array:
    """Single elements of a `keep_mask`.

    Args:
        words: The two words of the key (2,), as `jax.random.key_data` gives them.
        rate: The probability of False.
        row: Unsigned integers: the place in all axes of the mask but the last, as if they were one.
        column: The place in the last axis; the shapes broadcast.
        columns: The length of the last axis.

    Example:
        >>> key = jax.random.key(0)
        >>> row, column = jnp.uint32([[2 * 5 + 3], [2 * 5 + 4]]), jnp.arange(7, dtype=jnp.uint32)
        >>> kept = keep_at(jax.random.key_data(key), 0.5, row, column, 7)
        >>> bool((kept == keep_mask(key, 0.5, (3, 5, 7))[2, 3:]).all())
        True
    """
    # JAX hashes the place in the flattened array, of 64 bits in two words.
    low = row * jnp.uint32(columns)
    place = low + column
    carried = high_word(row, columns) + (place < low)
    high, low = jnp.split(threefry_2x32((words[0], words[1]), jnp.stack([carried, place])), 2)
    fraction = (high ^ low)[0] >> 9  # the 23 bits of a float below 1
    kept: jax.Array = fraction < math.ceil(float(np.float32(1.0 - rate)) * 2**23)
    return kept


def high_word(a: jax.Array, n: int) -> jax.Array:
    """The upper 32 bits of a product of two numbers of 32."""
    a_high, a_low, n_high, n_low = a >> 16, a & 0xFFFF, jnp.uint32(n >> 16), jnp.uint32(n & 0xFFFF)
    middle = a_high * n_low + (a_low * n_low >> 16)
    high: jax.Array = a_high * n_high + (middle >> 16) + (a_low * n_high + (middle & 0xFFFF) >> 16)
    return high
