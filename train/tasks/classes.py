"""What the tasks that tell classes apart share: the loss, and whether an answer is right."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, y: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """The mean over records of ``-log softmax(logits)[y]``, in float32 for narrower logits, in float64 for those.

    Args:
        logits: (b, classes).
        y: (b,), whole numbers from 0 on.
        where: (b,), which records count.

    Example:
        >>> float(cross_entropy(jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0]])), jnp.array([1, 0]))).__round__(4)
        0.4904
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y), where=where)


def is_largest(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Whether the label has the largest logit, (b,); of equal ones the first counts."""
    return jnp.argmax(logits, axis=-1) == y
