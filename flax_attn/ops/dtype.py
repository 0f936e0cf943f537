"""Dtypes and ranks of operands: Flax's conventions, under any of JAX's settings for promotion."""

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


def promote(dtype: DTypeLike | None, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Casts arrays, one of them of floats, to ``dtype``; None casts them to the dtype that holds all of them.

    Example:
        >>> [array.dtype.name for array in promote(None, jnp.ones(3, "bfloat16"), jnp.ones(3))]
        ['float32', 'float32']
    """
    common = promoted(*(array.dtype for array in arrays)) if dtype is None else dtype
    return tuple(array.astype(common) for array in arrays)


def add(x: jax.Array, y: jax.Array) -> jax.Array:
    """``x + y`` with broadcasting, computed in at least float32 and rounded once to the promoted dtype.

    The gradient of a broadcast operand is a sum, whose partial sums XLA would round in low precision.

    Example:
        >>> add(jnp.ones((2, 3), "bfloat16"), jnp.ones(3, "bfloat16")).dtype.name
        'bfloat16'
    """
    dtype = promoted(x.dtype, y.dtype)
    wide = score_dtype(dtype)
    return (x.astype(wide) + with_rank(y, x.ndim).astype(wide)).astype(dtype)


def multiply(x: jax.Array, y: jax.Array) -> jax.Array:
    """``x * y`` with broadcasting and the dtypes of `add`."""
    dtype = promoted(x.dtype, y.dtype)
    wide = score_dtype(dtype)
    return (x.astype(wide) * with_rank(y, x.ndim).astype(wide)).astype(dtype)


def with_rank(x: jax.Array, rank: int) -> jax.Array:
    """Puts axes of size 1 in front, which JAX refuses to do by itself under ``jax_numpy_rank_promotion="raise"``.

    Example:
        >>> with_rank(jnp.ones(3), 4).shape
        (1, 1, 1, 3)
    """
    return jnp.expand_dims(x, tuple(range(rank - x.ndim)))


def sigmoid(x: jax.Array) -> jax.Array:
    """Sigmoid in the dtype of ``x``, with value and gradient computed in at least float32.

    Example:
        >>> sigmoid(jnp.zeros(3)).tolist()
        [0.5, 0.5, 0.5]
    """
    return jax.nn.sigmoid(x.astype(score_dtype(x.dtype))).astype(x.dtype)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """``min(max(x + 3, 0), 6) / 6`` in the dtype of ``x``, computed as `sigmoid`; its gradient at -3 and 3 is 0.

    Example:
        >>> hard_sigmoid(jnp.array([-3.0, 0.0, 1.5, 4.0])).tolist()
        [0.0, 0.5, 0.75, 1.0]
    """
    return jax.nn.hard_sigmoid(x.astype(score_dtype(x.dtype))).astype(x.dtype)


def softmax(x: jax.Array, axis: int) -> jax.Array:
    """Softmax along an axis in the dtype of ``x``, with value and gradient computed in at least float32.

    Example:
        >>> softmax(jnp.zeros((1, 4)), axis=1).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    return jax.nn.softmax(x.astype(score_dtype(x.dtype)), axis=axis).astype(x.dtype)


def score_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype for scores and sums, at least float32 (float16 cannot represent -1e9)."""
    return promoted(dtype, jnp.float32)


def promoted(*dtypes: DTypeLike) -> jnp.dtype:
    """The dtype that holds all of ``dtypes``, asked for by name and so under ``"strict"`` promotion too.

    Example:
        >>> with jax.numpy_dtype_promotion("strict"):
        ...     promoted("bfloat16", "float32").name
        'float32'
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*(jnp.dtype(dtype) for dtype in dtypes))
