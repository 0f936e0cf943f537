"""Converts between maps and tokens, in one of two orders.

``pixels``: token i is pixel i, with its c channels as features.

``article``: the source tutorial's reshape of (b, c, h, w) to (b, h*w, c) without a transpose. A "token" is then c
consecutive values of one channel (or of adjacent channels, if c does not divide h*w). Kept for checkpoints that were
trained this way.
"""

import jax
import jax.numpy as jnp

from .._check import check_choice, check_shape

TOKEN_ORDERS = ("pixels", "article")


def map_to_tokens(x: jax.Array, token_order: str = "pixels") -> jax.Array:
    """Reshapes a map (b, h, w, c) into tokens (b, h*w, c).

    Raises:
        ValueError: If the token order is unknown.

    Example:
        >>> map_to_tokens(jnp.zeros((2, 5, 7, 3))).shape
        (2, 35, 3)
    """
    check_choice("token_order", token_order, TOKEN_ORDERS)
    b, h, w, c = x.shape
    if token_order == "article":
        x = jnp.transpose(x, (0, 3, 1, 2))
    return jnp.reshape(x, (b, h * w, c))


def tokens_to_map(tokens: jax.Array, height: int, width: int, token_order: str = "pixels") -> jax.Array:
    """Reshapes tokens (b, height*width, c) into a map (b, height, width, c); the inverse of `map_to_tokens`.

    Raises:
        ValueError: If the token order is unknown, or the number of tokens is not height * width.
    """
    check_choice("token_order", token_order, TOKEN_ORDERS)
    check_shape("tokens", tokens, "b n c", n=height * width)
    b, _, c = tokens.shape
    if token_order == "article":
        return jnp.transpose(jnp.reshape(tokens, (b, c, height, width)), (0, 2, 3, 1))
    return jnp.reshape(tokens, (b, height, width, c))


def flatten_channels_first(x: jax.Array) -> jax.Array:
    """Flattens (b, h, w, c) to (b, c*h*w) with channels slowest, the feature order of PyTorch's flatten.

    Example:
        >>> flatten_channels_first(jnp.arange(4).reshape(1, 1, 2, 2)).tolist()
        [[0, 2, 1, 3]]
    """
    return jnp.reshape(jnp.transpose(x, (0, 3, 1, 2)), (x.shape[0], -1))
