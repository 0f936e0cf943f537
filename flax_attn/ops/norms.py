"""Norms and deviations with PyTorch's gradient where they are 0, which is 0; that of ``jnp.linalg.norm`` is NaN."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from .dtype import score_dtype

Axes = int | Sequence[int] | None


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root with gradient 0 at 0.

    Example:
        >>> jax.vmap(jax.grad(safe_sqrt))(jnp.array([0.0, 4.0])).tolist()
        [0.0, 0.25]
    """
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def safe_norm(x: jax.Array, axis: Axes = None, keepdims: bool = False) -> jax.Array:
    """Square root of the sum of squares over ``axis``, computed in at least float32, with gradient 0 at zero.

    Example:
        >>> jax.grad(safe_norm)(jnp.zeros(3)).tolist()
        [0.0, 0.0, 0.0]
    """
    wide = x.astype(score_dtype(x.dtype))
    return safe_sqrt(jnp.sum(jnp.square(wide), _axes(axis), keepdims=keepdims)).astype(x.dtype)


def safe_std(x: jax.Array, axis: Axes = None, ddof: int = 1, keepdims: bool = False) -> jax.Array:
    """Standard deviation over ``axis``, computed in at least float32, with gradient 0 where it is 0.

    Args:
        x: Array of floats.
        axis: One axis, several, or None for all.
        ddof: What is taken from the number of elements that the sum of squares is divided by; 1, as in PyTorch, gives
            NaN for a single element.
        keepdims: Whether to keep the axes with size 1.

    Example:
        >>> x = jnp.array([1.0, 3.0])
        >>> safe_std(x, ddof=0).tolist(), jax.grad(safe_std)(jnp.ones(3)).tolist()
        (1.0, [0.0, 0.0, 0.0])
    """
    wide = x.astype(score_dtype(x.dtype))
    return safe_sqrt(jnp.var(wide, _axes(axis), ddof=ddof, keepdims=keepdims)).astype(x.dtype)


def _axes(axis: Axes) -> int | tuple[int, ...] | None:
    return tuple(axis) if isinstance(axis, Sequence) else axis
