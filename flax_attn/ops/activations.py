"""ReLUs with PyTorch's gradients where JAX's have others: at 0 (a black image, a bias of 0), and at NaN."""

import jax
import jax.numpy as jnp


def relu(x: jax.Array) -> jax.Array:
    """``max(x, 0)``, gradient 0 at 0; a NaN hands its gradient on, which ``jax.nn.relu`` sets to 0.

    Example:
        >>> jax.vmap(jax.grad(relu))(jnp.array([-1.0, 0.0, 1.0, jnp.nan])).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)


def leaky_relu(x: jax.Array, negative_slope: float = 0.01) -> jax.Array:
    """``x`` where it is positive, else ``negative_slope * x``; so is the gradient at 0, 1 for ``jax.nn.leaky_relu``.

    Example:
        >>> jax.vmap(jax.grad(lambda x: leaky_relu(x, 0.25)))(jnp.array([-1.0, 0.0, 1.0])).tolist()
        [0.25, 0.25, 1.0]
    """
    return jnp.where(x > 0, x, negative_slope * x)
