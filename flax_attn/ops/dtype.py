"""The dtype of a computation, in Flax's usual sense."""

import jax
from jax.typing import DTypeLike


def cast(x: jax.Array, dtype: DTypeLike | None) -> jax.Array:
    """Returns ``x`` in ``dtype``, or as it is where ``dtype`` is None.

    Example:
        >>> cast(jax.numpy.ones(3), "bfloat16").dtype.name
        'bfloat16'
    """
    return x if dtype is None else x.astype(dtype)
