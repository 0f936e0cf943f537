"""The dtype of a computation, in Flax's usual sense."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def cast(x: jax.Array, dtype: DTypeLike | None) -> jax.Array:
    """Returns ``x`` in ``dtype``; where that is None floats stay as they are and whole numbers become float32.

    Example:
        >>> cast(jnp.ones(3), "bfloat16").dtype.name
        'bfloat16'
    """
    if dtype is None:
        return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
    return x.astype(dtype)


def add(x: jax.Array, y: jax.Array) -> jax.Array:
    """``x + y`` with broadcasting, in float32 at least, rounded once to the wider of both dtypes.

    The gradient of what is broadcast is a sum over the places it went to. Of a narrow product or sum XLA would round
    partial sums on the way.

    Example:
        >>> add(jnp.ones((2, 3), "bfloat16"), jnp.ones(3, "bfloat16")).dtype.name
        'bfloat16'
    """
    dtype = jnp.result_type(x, y)
    wide = score_dtype(dtype)
    return (x.astype(wide) + y.astype(wide)).astype(dtype)


def multiply(x: jax.Array, y: jax.Array) -> jax.Array:
    """``x * y`` with broadcasting, in the sense of `add`."""
    dtype = jnp.result_type(x, y)
    wide = score_dtype(dtype)
    return (x.astype(wide) * y.astype(wide)).astype(dtype)


def sigmoid(x: jax.Array) -> jax.Array:
    """The logistic function, value and gradient in float32 at least, in the dtype of ``x``.

    Example:
        >>> sigmoid(jnp.zeros(3)).tolist()
        [0.5, 0.5, 0.5]
    """
    return jax.nn.sigmoid(x.astype(score_dtype(x.dtype))).astype(x.dtype)


def score_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype of scores and sums: float32 for the narrow types (float16 cannot hold -1e9), else their own."""
    return jnp.promote_types(dtype, jnp.float32)
