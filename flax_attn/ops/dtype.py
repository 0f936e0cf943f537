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


def score_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype of scores and sums: float32 for the narrow types (float16 cannot hold -1e9), else their own."""
    return jnp.promote_types(dtype, jnp.float32)
