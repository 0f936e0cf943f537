"""Nearest neighbours by PyTorch's rule."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from .dtype import score_dtype


def resize_nearest(x: jax.Array, size: Sequence[int]) -> jax.Array:
    """Resizes (b, *spatial, c) to (b, *size, c), repeating or leaving out elements, as ``interpolate`` in PyTorch.

    Element i of n along an axis of length l is floor(i * (l / n)), in PyTorch's float32; ``jax.image.resize`` takes the
    middle of the element, another one wherever n is no multiple of l.

    Example:
        >>> resize_nearest(jnp.arange(3.0).reshape(1, 3, 1, 1), (5, 1)).ravel().tolist()
        [0.0, 0.0, 1.0, 1.0, 2.0]
    """
    wide = x.astype(score_dtype(x.dtype))  # the gradient of what is repeated is a sum
    for axis, length in enumerate(size, start=1):
        if length != x.shape[axis]:
            # With numbers of JAX, as sizes may be symbolic.
            scale = jnp.asarray(x.shape[axis], jnp.float32) / jnp.asarray(length, jnp.float32)
            places = jnp.floor(jnp.arange(length, dtype=jnp.float32) * scale).astype(jnp.int32)
            wide = jnp.take(wide, places, axis, mode="clip")
    return wide.astype(x.dtype)
