"""Dot-product and additive attention as functions of arrays.

All blocks call these functions, so a faster implementation only has to change this file and `blocked`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._check import check_choice
from .blocked import MASKED_SCORE, Side, block_size, blocked_attention, cut, uncut
from .dropout import DropoutDraw
from .dtype import promoted, score_dtype
from .placement import is_automatic, share_queries, spread, token_devices

# The forms of dot-product attention, and what each needs. `choose_implementation` decides which is taken.
NEEDS = {
    "plain": "nothing",
    "blocked": "floats, sizes that are neither symbolic nor 0, need_weights=False, no weights_fn but a DropoutDraw, no "
    "jax.shard_map or pmap, and no explicit mesh axes",
    "cudnn": "a GPU, bfloat16 or float16, sizes that are not symbolic, d_k = d_v, at most 128 and a multiple of 8, "
    "need_weights=False, and no weights_fn, mask or bias",
}

# Up to so many queries, blocks are no faster than the plain form.
PLAIN_QUERIES = 64

# Scores in a block, over the batch and all heads. On CPUs 1 MiB of float32, the cache of a core; elsewhere as many as
# keep a device busy (not measured), and as many as the plain form may hold at once.
CPU_SCORES, DEVICE_SCORES = 2**18, 2**26


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
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Computes ``softmax(query / temperature @ key^T + bias) @ value`` for all heads.

    There are three forms of it:

    - "plain" holds all scores at once. It returns weights, takes any ``weights_fn``, and is the only form with a
      forward mode (``jax.jvp``, ``jax.jacfwd``) and for symbolic sizes (``jax.export``), complex numbers and integers.
    - "blocked" takes blocks of queries and keys, so memory grows with n_query + n_key instead of their product; the
      backward pass computes the weights again. It computes in float32 or float64. Second derivatives, which it has,
      hold all scores.
    - "cudnn" is cuDNN's kernel, through ``jax.nn.dot_product_attention``, on GPUs from NVIDIA, for bfloat16 and float16
      without a mask or bias. It has not been measured yet.

    By default it is "blocked" for more than 64 queries where it can be, and else "plain"; where JAX's default device is
    a GPU or TPU (not measured) "plain" also for up to 2**26 scores. Inside `jax.shard_map`, and on a mesh with explicit
    axes, it is "plain".

    On a mesh that `jax.set_mesh` makes current, the devices of an automatic axis "tokens" share the queries, where
    their number divides n_query: "plain" and "blocked" hold the scores of a device's own queries, and all keys and
    values. Nothing else changes, dropout included.

    Args:
        query: (b, n_query, heads, d_k).
        key: (b, n_key, heads, d_k).
        value: (b, n_key, heads, d_v).
        temperature: Divisor of the queries; sqrt(d_k) in Vaswani et al. 2017.
        mask: (b, heads, n_query, n_key), where axes of size 1 broadcast; booleans or integers, 0 sets the score to
            -1e9.
        bias: Floats of the same shape, added to the scores; minus infinity hides a key.
        weights_fn: Function applied to the weights; takes the plain form, unless it is a `DropoutDraw`, which both
            forms compute from the same mask.
        need_weights: Whether to return the attention weights.
        precision: Precision of all matrix products; cuDNN's kernel has its own.
        implementation: "plain", "blocked" or "cudnn"; None chooses.

    Returns:
        The output (b, n_query, heads, d_v), and the weights after ``weights_fn`` (b, heads, n_query, n_key) or None.

    Raises:
        ValueError: If the mask or bias does not fit, a mask is of floats, a bias of booleans or integers, or the
            implementation cannot run on the device, or for the arguments.

    Example:
        >>> from functools import partial
        >>> tokens = jnp.ones((2, 300, 4, 8))
        >>> attend = partial(dot_product_attention, temperature=8**0.5, need_weights=False)
        >>> attend(tokens, tokens, tokens)[0].shape
        (2, 300, 4, 8)
        >>> plain = partial(attend, tokens, tokens, implementation="plain")
        >>> jax.jvp(lambda value: plain(value)[0], [tokens], [tokens])[1].shape
        (2, 300, 4, 8)
    """
    b, n_query, heads, _ = query.shape
    check_mask(mask, bias, (b, heads, n_query, key.shape[1]), "b, heads, n_query, n_key")
    platform = jax.default_backend()
    draw = weights_fn if isinstance(weights_fn, DropoutDraw) and weights_fn.rate < 1 else None
    weights_used = need_weights or (weights_fn is not None and draw is None)
    masked = mask is not None or bias is not None
    given = [array for array in (query, key, value, mask, bias) if array is not None]
    chosen = choose_implementation(
        implementation,
        query,
        key,
        value,
        weights_used=weights_used,
        masked=masked,
        dropped=draw is not None,
        platform=platform,
        automatic=is_automatic(*given),
    )
    if chosen == "cudnn":
        out = jax.nn.dot_product_attention(query, key, value, scale=1 / temperature, implementation="cudnn")
        return out, None
    if chosen == "blocked":
        dtype = promoted(score_dtype(query.dtype), key.dtype, value.dtype)
        dropped = None
        if draw is not None:
            shape = (b, heads, n_query, key.shape[1])
            words = draw.words
            dropped = draw.keep_mask(draw.key, draw.rate, shape) if words is None else words
        arrays = (
            (query.astype(dtype) / temperature).astype(dtype),
            key.astype(dtype),
            value.astype(dtype),
            None if mask is None else mask.astype(bool),
            None if bias is None else bias.astype(dtype),
            dropped,
        )
        rate, block_scores = 0.0 if draw is None else draw.rate, CPU_SCORES if platform == "cpu" else DEVICE_SCORES

        def attend(first: jax.Array | int, *arrays: Any) -> jax.Array:
            *others, dropped = arrays
            if dropped is not None and dropped.ndim == 1:
                dropped = jnp.append(dropped, jnp.stack([first, n_query]).astype(dropped.dtype))
            return blocked_attention(*others, dropped, rate, block_scores, precision)

        axes = (1, None, None, 2, 2, None if dropped is None or dropped.ndim == 1 else 2)
        return share_queries(attend, n_query, arrays, axes).astype(value.dtype), None
    out, weights = _attend(
        query if token_devices(n_query) == 1 else spread(query, 1),
        key=key,
        value=value,
        temperature=temperature,
        mask=mask,
        bias=bias,
        weights_fn=weights_fn,
        precision=precision,
    )
    return out, weights if need_weights else None


def choose_implementation(
    implementation: str | None,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    weights_used: bool,
    masked: bool,
    dropped: bool = False,
    platform: str,
    automatic: bool = True,
) -> str:
    """Which of the forms in `NEEDS` computes attention; see `dot_product_attention`.

    Args:
        implementation: The form asked for, or None.
        query: An array, or anything with its shape and dtype.
        key: The same.
        value: The same.
        weights_used: Whether the weights are returned or go through a function other than dropout.
        masked: Whether there is a mask or bias.
        dropped: Whether weights are dropped.
        platform: "cpu", "gpu" or "tpu".
        automatic: Whether JAX alone spreads the arrays over devices, see `is_automatic`.

    Raises:
        ValueError: If the form asked for needs something else.
    """
    check_choice("implementation", implementation, (None, *NEEDS))
    arrays = (query, key, value)
    dtypes = [jnp.dtype(x.dtype).name for x in arrays]
    fixed = all(isinstance(size, int) for x in arrays for size in x.shape)
    d_k, d_v = query.shape[-1], value.shape[-1]
    floats = all(jnp.issubdtype(x.dtype, jnp.floating) for x in arrays)
    empty = any(0 in x.shape for x in arrays)
    able = {
        "plain": True,
        "blocked": not weights_used and fixed and not empty and floats and automatic,
        "cudnn": not (weights_used or masked or dropped)
        and fixed
        and platform == "gpu"
        and dtypes in (["bfloat16"] * 3, ["float16"] * 3)
        and d_k == d_v <= 128
        and d_k % 8 == 0,
    }
    if implementation is not None:
        if able[implementation]:
            return implementation
        given = [f"{name} {x.shape}" for name, x in zip(("query", "key", "value"), arrays, strict=True)]
        kinds = (("weights", weights_used), ("a mask or bias", masked), ("dropout", dropped))
        used = [name for name, is_used in kinds if is_used]
        got = ", ".join((*given, "of " + " and ".join(dict.fromkeys(dtypes)), f"on {platform}"))
        raise ValueError(
            f"implementation={implementation!r} needs {NEEDS[implementation]}; got {' with '.join((got, *used))}"
        )
    if not able["blocked"] or query.shape[1] <= PLAIN_QUERIES:
        return "plain"
    scores = math.prod(query.shape[:3]) * key.shape[1]
    return "blocked" if platform == "cpu" or scores > DEVICE_SCORES else "plain"


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
    need_weights: bool = True,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Computes ``softmax(score_fn(tanh(query + key)) + bias) @ value`` for projected queries and keys.

    Many queries are taken in blocks, whose hidden features the backward pass computes again: memory grows with
    n_query * n_key for the weights, and with n_query + n_key without them. Devices share the queries as in
    `dot_product_attention`.

    Args:
        query: (b, n_query, hidden).
        key: (b, n_key, hidden).
        value: (b, n_key, d_v).
        score_fn: Maps (b, n_query, n_key, hidden) to (b, n_query, n_key, 1), each place for itself.
        mask: (b, n_query, n_key), where axes of size 1 broadcast; booleans or integers, 0 sets the score to -1e9.
        bias: Floats of the same shape, added to the scores; minus infinity hides a key.
        need_weights: Whether to return the attention weights.
        precision: Precision of the weighted sum.

    Returns:
        The output (b, n_query, d_v), and the weights (b, n_query, n_key) or None.

    Raises:
        ValueError: If the mask or bias does not fit, a mask is of floats, or a bias of booleans or integers.

    Example:
        >>> tokens = jnp.ones((2, 300, 8))
        >>> out, weights = additive_attention(tokens, tokens, tokens, lambda hidden: hidden[..., :1])
        >>> out.shape, weights.shape
        ((2, 300, 8), (2, 300, 300))
    """
    check_mask(mask, bias, (*query.shape[:2], key.shape[1]), "b, n_query, n_key")
    wide = score_dtype(query.dtype)

    def attend(
        key: jax.Array, value: jax.Array, block: tuple[jax.Array | None, ...]
    ) -> tuple[jax.Array, jax.Array | None]:
        some, mask, bias = block
        assert some is not None
        hidden = jnp.tanh(some.astype(wide)[:, :, None] + key.astype(wide)[:, None]).astype(query.dtype)
        scores = score_fn(hidden)[..., 0]
        weights = attention_weights(scores.astype(score_dtype(scores.dtype)), mask, bias).astype(value.dtype)
        out = jnp.einsum("bqk,bkd->bqd", weights, value, precision=precision)
        return out, weights if need_weights else None

    b, n_query, features = query.shape
    given = [array for array in (query, key, value, mask, bias) if array is not None]
    if not (is_automatic(*given) and all(isinstance(size, int) for array in given for size in array.shape)):
        return attend(key, value, (query, mask, bias))
    most = CPU_SCORES if jax.default_backend() == "cpu" else DEVICE_SCORES
    most = max(1, most // max(1, b * key.shape[1] * features))

    def of_part(_: Any, key: jax.Array, value: jax.Array, *part: Any) -> Any:
        block = partial(attend, key, value)
        return block(part) if part[0].shape[1] <= most else _map_queries(block, part, most)

    shared: tuple[jax.Array, jax.Array | None]
    shared = share_queries(of_part, n_query, (key, value, query, mask, bias), (None, None, 1, 1, 1))
    return shared


def _map_queries(attend: Callable[..., Any], arrays: tuple[jax.Array | None, ...], most: int) -> Any:
    """Calls ``attend`` with at most so many queries, which are axis 1 of the arrays and of what it returns, at once."""
    n_query = max(array.shape[1] for array in arrays if array is not None)
    side = Side(n_query, block_size(n_query, most))
    # None is what is there for all queries, or not at all.
    blocks = tuple(None if array is None or array.shape[1] == 1 else cut(array, 1, side) for array in arrays)

    def of_block(block: tuple[jax.Array | None, ...]) -> Any:
        return attend(tuple(array if part is None else part for part, array in zip(block, arrays, strict=True)))

    out = jax.lax.map(jax.checkpoint(of_block), blocks)
    return jax.tree.map(lambda x: uncut(x, 1, side), out)


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
