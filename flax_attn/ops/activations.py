"""ReLUs and the absolute value with PyTorch's gradients at 0 (common with black images and zero biases) and at NaN."""

import jax
import jax.numpy as jnp


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


def absolute(x: jax.Array) -> jax.Array:
    """``|x|`` with gradient 0 at 0, where ``jnp.abs`` has gradient 1.

    Example:
        >>> jax.vmap(jax.grad(absolute))(jnp.array([-2.0, 0.0, 2.0])).tolist()
        [-1.0, 0.0, 1.0]
    """
    sign = jnp.where(x > 0, 1, jnp.where(x < 0, -1, 0)).astype(x.dtype)
    return x * sign
