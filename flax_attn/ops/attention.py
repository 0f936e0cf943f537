"""Dot-product and additive attention as functions of arrays.

All blocks call these functions, so a faster implementation only has to change this file.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .dtype import score_dtype

# The tutorial's score for masked keys. A fully masked row becomes uniform instead of NaN.
# As in the tutorial, masked keys win over visible scores below -1e9.
MASKED_SCORE = -1e9

# Number of queries processed at a time if the weights are not needed.
QUERY_BLOCK = 64


def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    temperature: float,
    mask: jax.Array | None = None,
    weights_fn: Callable[[jax.Array], jax.Array] | None = None,
    need_weights: bool = True,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Computes ``softmax(query / temperature @ key^T) @ value`` for all heads.

    If the weights are not needed, queries are processed `QUERY_BLOCK` at a time and the backward pass recomputes the
    weights, so memory grows with n_query + n_key instead of their product.

    Args:
        query: (b, n_query, heads, d_k).
        key: (b, n_key, heads, d_k).
        value: (b, n_key, heads, d_v).
        temperature: Divisor of the queries; sqrt(d_k) in Vaswani et al. 2017.
        mask: (b, heads, n_query, n_key), where axes of size 1 broadcast; 0 sets the score to -1e9.
        weights_fn: Function applied to the weights, such as dropout; disables processing in blocks.
        need_weights: Whether to return the attention weights.
        precision: Precision of both matrix products.

    Returns:
        The output (b, n_query, heads, d_v), and the weights after ``weights_fn`` (b, heads, n_query, n_key) or None.
    """
    check_mask(mask, (query.shape[0], query.shape[2], query.shape[1], key.shape[1]), "b, heads, n_query, n_key")
    attend = partial(_attend, key=key, value=value, temperature=temperature, precision=precision)
    if need_weights or weights_fn is not None or query.shape[1] <= QUERY_BLOCK:
        out, weights = attend(query, mask, weights_fn=weights_fn)
        return out, weights if need_weights else None

    # A mask with a row per query is split with the queries; a single row is shared by all blocks.
    shared = mask if mask is None or mask.shape[2] == 1 else None
    own = None if mask is None or mask.shape[2] == 1 else jnp.moveaxis(mask, 2, 0)

    @jax.checkpoint
    def attend_some(some: tuple[jax.Array, jax.Array | None]) -> jax.Array:
        query, own = some
        mask = shared if own is None else jnp.moveaxis(own, 0, 2)
        return jnp.moveaxis(attend(jnp.moveaxis(query, 0, 1), mask)[0], 1, 0)

    out = _map_blocks(attend_some, (jnp.moveaxis(query, 1, 0), own), query.shape[1])
    return jnp.moveaxis(out, 0, 1), None


def _map_blocks(function: Callable[[Any], jax.Array], arrays: Any, count: int) -> jax.Array:
    """Applies ``function`` to blocks of `QUERY_BLOCK` along the first axis of all arrays, and to the remainder.

    `jax.lax.map` with a ``batch_size`` vectorises over single queries instead, which is slower on CPUs.
    """
    blocks, rest = divmod(count, QUERY_BLOCK)
    full = blocks * QUERY_BLOCK
    cut = jax.tree.map(lambda array: array[:full].reshape(blocks, QUERY_BLOCK, *array.shape[1:]), arrays)
    mapped: jax.Array = jax.lax.map(function, cut)
    mapped = mapped.reshape(full, *mapped.shape[2:])
    if not rest:
        return mapped
    return jnp.concatenate([mapped, function(jax.tree.map(lambda array: array[full:], arrays))])


def _attend(
    query: jax.Array,
    mask: jax.Array | None,
    *,
    key: jax.Array,
    value: jax.Array,
    temperature: float,
    weights_fn: Callable[[jax.Array], jax.Array] | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[jax.Array, jax.Array]:
    """Computes attention and its weights for all queries at once."""
    scores = jnp.einsum(
        "bqhd,bkhd->bhqk",
        query / temperature,
        key,
        precision=precision,
        preferred_element_type=score_dtype(query.dtype),
    )
    weights = attention_weights(scores, mask, weights_fn).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value, precision=precision), weights


def additive_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    score_fn: Callable[[jax.Array], jax.Array],
    *,
    mask: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[jax.Array, jax.Array]:
    """Computes ``softmax(score_fn(tanh(query + key))) @ value`` for projected queries and keys.

    Args:
        query: (b, n_query, hidden).
        key: (b, n_key, hidden).
        value: (b, n_key, d_v).
        score_fn: Maps (b, n_query, n_key, hidden) to (b, n_query, n_key, 1).
        mask: (b, n_query, n_key), where axes of size 1 broadcast; 0 sets the score to -1e9.
        precision: Precision of the weighted sum.

    Returns:
        The output (b, n_query, d_v) and the weights (b, n_query, n_key).
    """
    wide = score_dtype(query.dtype)
    hidden = jnp.tanh(query.astype(wide)[:, :, None] + key.astype(wide)[:, None]).astype(query.dtype)
    scores = score_fn(hidden)[..., 0]
    weights = attention_weights(scores.astype(score_dtype(scores.dtype)), mask).astype(value.dtype)
    return jnp.einsum("bqk,bkd->bqd", weights, value, precision=precision), weights


def attention_weights(
    scores: jax.Array,
    mask: jax.Array | None = None,
    weights_fn: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Softmax over the keys (the last axis), with masked scores set to -1e9."""
    if mask is not None:
        scores = jnp.where(mask == 0, MASKED_SCORE, scores)
    weights = jax.nn.softmax(scores, axis=-1)
    return weights if weights_fn is None else weights_fn(weights)


def check_mask(mask: jax.Array | None, shape: tuple[int, ...], layout: str) -> None:
    """Raises ``ValueError`` unless ``mask`` is None or broadcasts to ``shape`` with the same number of axes."""
    if mask is None:
        return
    if not hasattr(mask, "shape"):
        raise ValueError(f"mask must be an array, got {type(mask).__name__}")
    fits = len(mask.shape) == len(shape) and all(got in (1, want) for got, want in zip(mask.shape, shape, strict=True))
    if not fits:
        raise ValueError(f"mask must have shape ({layout})={shape}, axes of size 1 allowed, got {tuple(mask.shape)}")
