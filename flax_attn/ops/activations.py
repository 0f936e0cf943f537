"""Activations with PyTorch's gradients at their kinks (0 is common with black images and zero biases) and at NaN."""

import jax
import jax.numpy as jnp

from .dtype import score_dtype


def relu(x: jax.Array) -> jax.Array:
    """``max(x, 0)`` with gradient 0 at 0 and 1 at NaN, where ``jax.nn.relu`` has gradient 0.

    Example:
        >>> jax.vmap(jax.grad(relu))(jnp.array([-1.0, 0.0, 1.0, jnp.nan])).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)


def leaky_relu(x: jax.Array, negative_slope: float = 0.01) -> jax.Array:
    """Leaky ReLU with gradient ``negative_slope`` at 0, where ``jax.nn.leaky_relu`` has gradient 1.

    Example:
        >>> jax.vmap(jax.grad(lambda x: leaky_relu(x, 0.25)))(jnp.array([-1.0, 0.0, 1.0])).tolist()
        [0.25, 0.25, 1.0]
    """
    return jnp.where(x > 0, x, negative_slope * x)


def hard_swish(x: jax.Array) -> jax.Array:
    """``x * clip(x + 3, 0, 6) / 6`` in at least float32, with gradient 0 at -3 and 1 at 3, where JAX has the mean.

    Example:
        >>> hard_swish(jnp.array([-4.0, 0.0, 1.5, 4.0])).tolist()
        [0.0, 0.0, 1.125, 4.0]
    """
    wide = x.astype(score_dtype(x.dtype))
    bent = jnp.where(jnp.abs(wide) < 3, wide, 0)  # so that no gradient is 0 times infinity
    straight = jnp.where(wide <= -3, jnp.zeros((), wide.dtype), wide)
    return jnp.where(jnp.abs(wide) < 3, bent * (bent + 3) / 6, straight).astype(x.dtype)


def absolute(x: jax.Array) -> jax.Array:
    """``|x|`` with gradient 0 at 0, where ``jnp.abs`` has gradient 1.

    Example:
        >>> jax.vmap(jax.grad(absolute))(jnp.array([-2.0, 0.0, 2.0])).tolist()
        [-1.0, 0.0, 1.0]
    """
    sign = jnp.where(x > 0, 1, jnp.where(x < 0, -1, 0)).astype(x.dtype)
    return x * sign
