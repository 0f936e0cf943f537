"""Computation dtypes, following Flax's conventions."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def cast(x: jax.Array, dtype: DTypeLike | None) -> jax.Array:
    """Casts ``x`` to ``dtype``; None leaves floats unchanged and casts integers to float32.

    Example:
        >>> cast(jnp.ones(3), "bfloat16").dtype.name
        'bfloat16'
    """
    if dtype is None:
        return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
    return x.astype(dtype)


def add(x: jax.Array, y: jax.Array) -> jax.Array:
    """``x + y`` with broadcasting, computed in at least float32 and rounded once to the promoted dtype.

    The gradient of a broadcast operand is a sum, whose partial sums XLA would round in low precision.

    Example:
        >>> add(jnp.ones((2, 3), "bfloat16"), jnp.ones(3, "bfloat16")).dtype.name
        'bfloat16'
    """
    dtype = jnp.result_type(x, y)
    wide = score_dtype(dtype)
    return (x.astype(wide) + y.astype(wide)).astype(dtype)


def multiply(x: jax.Array, y: jax.Array) -> jax.Array:
    """``x * y`` with broadcasting and the dtypes of `add`."""
    dtype = jnp.result_type(x, y)
    wide = score_dtype(dtype)
    return (x.astype(wide) * y.astype(wide)).astype(dtype)


def sigmoid(x: jax.Array) -> jax.Array:
    """Sigmoid in the dtype of ``x``, with value and gradient computed in at least float32.

    Example:
        >>> sigmoid(jnp.zeros(3)).tolist()
        [0.5, 0.5, 0.5]
    """
    return jax.nn.sigmoid(x.astype(score_dtype(x.dtype))).astype(x.dtype)


def score_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype for scores and sums, at least float32 (float16 cannot represent -1e9)."""
    return jnp.promote_types(dtype, jnp.float32)
