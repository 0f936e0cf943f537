"""Norms whose gradient is 0 where they are 0, as PyTorch's are; a plain square root would give 0 * inf = NaN."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from .dtype import score_dtype


def safe_norm(x: jax.Array, axis: int | Sequence[int]) -> jax.Array:
    """The Euclidean norm over ``axis``, kept with size 1, summed in at least float32.

    Example:
        >>> safe_norm(jnp.array([3.0, 4.0]), -1).tolist()
        [5.0]
        >>> jax.grad(lambda x: safe_norm(x, -1)[0])(jnp.zeros(2)).tolist()
        [0.0, 0.0]
    """
    axes = axis if isinstance(axis, int) else tuple(axis)
    total = jnp.sum(jnp.square(x.astype(score_dtype(x.dtype))), axis=axes, keepdims=True)
    zero = total == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, total))).astype(x.dtype)
