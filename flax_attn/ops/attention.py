"""Dot-product and additive attention as functions of arrays.

All blocks call these functions, so a faster implementation only has to change this file.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._check import is_below
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
    bias: jax.Array | None = None,
    weights_fn: Callable[[jax.Array], jax.Array] | None = None,
    need_weights: bool = True,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Computes ``softmax(query / temperature @ key^T + bias) @ value`` for all heads.

    If the weights are not needed, queries are processed `QUERY_BLOCK` at a time and the backward pass recomputes the
    weights, so memory grows with n_query + n_key instead of their product.

    Args:
        query: (b, n_query, heads, d_k).
        key: (b, n_key, heads, d_k).
        value: (b, n_key, heads, d_v).
        temperature: Divisor of the queries; sqrt(d_k) in Vaswani et al. 2017.
        mask: (b, heads, n_query, n_key), where axes of size 1 broadcast; booleans or integers, 0 sets the score to
            -1e9.
        bias: Floats of the same shape, added to the scores; minus infinity hides a key.
        weights_fn: Function applied to the weights, such as dropout; disables processing in blocks.
        need_weights: Whether to return the attention weights.
        precision: Precision of both matrix products.

    Returns:
        The output (b, n_query, heads, d_v), and the weights after ``weights_fn`` (b, heads, n_query, n_key) or None.

    Raises:
        ValueError: If the mask or bias does not fit, a mask is of floats, or a bias of booleans or integers.
    """
    b, n_query, heads, _ = query.shape
    check_mask(mask, bias, (b, heads, n_query, key.shape[1]), "b, heads, n_query, n_key")
    attend = partial(_attend, key=key, value=value, temperature=temperature, precision=precision)
    if need_weights or weights_fn is not None or is_below(n_query, QUERY_BLOCK + 1):
        out, weights = attend(query, mask=mask, bias=bias, weights_fn=weights_fn)
        return out, weights if need_weights else None

    blocks = (n_query + QUERY_BLOCK - 1) // QUERY_BLOCK
    cut: dict[str, Any] = {"query": _cut(query, 1, blocks)}
    shared: dict[str, Any] = {}
    for name, array in (("mask", mask), ("bias", bias)):
        if array is None or array.shape[2] == 1:
            shared[name] = array
        else:
            cut[name] = _cut(array, 2, blocks)
    # A `jax.lax.map` over queries with a ``batch_size`` would vectorise over single queries, which is slower on CPUs.
    out = jax.lax.map(jax.checkpoint(lambda block: attend(**block, **shared)[0]), cut)
    return jnp.moveaxis(out, 0, 1).reshape(b, blocks * QUERY_BLOCK, heads, value.shape[-1])[:, :n_query], None


def _cut(array: jax.Array, axis: int, blocks: int) -> jax.Array:
    """Cuts an axis into blocks of `QUERY_BLOCK`, filled up with zeros, along a new first axis."""
    array = jnp.asarray(array)
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, blocks * QUERY_BLOCK - array.shape[axis])
    shape = (*array.shape[:axis], blocks, QUERY_BLOCK, *array.shape[axis + 1 :])
    return jnp.moveaxis(jnp.pad(array, padding).reshape(shape), axis, 0)


def _attend(
    query: jax.Array,
    *,
    key: jax.Array,
    value: jax.Array,
    temperature: float,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
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
    weights = attention_weights(scores, mask, bias, weights_fn).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value, precision=precision), weights


def additive_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    score_fn: Callable[[jax.Array], jax.Array],
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[jax.Array, jax.Array]:
    """Computes ``softmax(score_fn(tanh(query + key)) + bias) @ value`` for projected queries and keys.

    Args:
        query: (b, n_query, hidden).
        key: (b, n_key, hidden).
        value: (b, n_key, d_v).
        score_fn: Maps (b, n_query, n_key, hidden) to (b, n_query, n_key, 1).
        mask: (b, n_query, n_key), where axes of size 1 broadcast; booleans or integers, 0 sets the score to -1e9.
        bias: Floats of the same shape, added to the scores; minus infinity hides a key.
        precision: Precision of the weighted sum.

    Returns:
        The output (b, n_query, d_v) and the weights (b, n_query, n_key).

    Raises:
        ValueError: If the mask or bias does not fit, a mask is of floats, or a bias of booleans or integers.
    """
    check_mask(mask, bias, (*query.shape[:2], key.shape[1]), "b, n_query, n_key")
    wide = score_dtype(query.dtype)
    hidden = jnp.tanh(query.astype(wide)[:, :, None] + key.astype(wide)[:, None]).astype(query.dtype)
    scores = score_fn(hidden)[..., 0]
    weights = attention_weights(scores.astype(score_dtype(scores.dtype)), mask, bias).astype(value.dtype)
    return jnp.einsum("bqk,bkd->bqd", weights, value, precision=precision), weights


def attention_weights(
    scores: jax.Array,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    weights_fn: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Softmax over the keys (the last axis) of the scores plus ``bias``, with masked scores set to -1e9."""
    _check_dtypes(mask, bias)
    if bias is not None:
        scores = scores + bias.astype(scores.dtype)
    if mask is not None:
        scores = jnp.where(mask.astype(bool), scores, MASKED_SCORE)
    weights = jax.nn.softmax(scores, axis=-1)
    return weights if weights_fn is None else weights_fn(weights)


def check_mask(mask: jax.Array | None, bias: jax.Array | None, shape: tuple[int, ...], layout: str) -> None:
    """Raises ``ValueError`` unless ``mask`` and ``bias`` fit the scores, of ``shape``.

    Each is None or an array with as many axes, each of the same size or 1. A mask is of booleans or integers and a bias
    of floats: a float mask may mean either, 0 for hidden or 0 for visible (as PyTorch's masks of 0 and minus infinity).
    """
    for argument, array in (("mask", mask), ("bias", bias)):
        if array is None:
            continue
        if not hasattr(array, "shape") or hasattr(array, "detach"):  # a tensor of PyTorch
            raise ValueError(f"{argument} must be an array, got {type(array).__name__}")
        got = tuple(array.shape)
        if len(got) != len(shape) or any(size not in (1, want) for size, want in zip(got, shape, strict=True)):
            raise ValueError(f"{argument} must have shape ({layout})={shape}, axes of size 1 allowed, got {got}")
    _check_dtypes(mask, bias)


def _check_dtypes(mask: jax.Array | None, bias: jax.Array | None) -> None:
    if mask is not None and not (mask.dtype == bool or jnp.issubdtype(mask.dtype, jnp.integer)):
        raise ValueError(
            f"mask must be of booleans or integers, 0 hides a key, got {mask.dtype}: pass mask.astype(bool) if its "
            "zeros hide, or bias=mask if it is added to the scores, like PyTorch's float masks of 0 and -inf"
        )
    if bias is not None and not jnp.issubdtype(bias.dtype, jnp.floating):
        raise ValueError(f"bias must be of floats, added to the scores, got {bias.dtype}: pass mask= to hide keys")
