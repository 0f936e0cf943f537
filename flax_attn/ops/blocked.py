"""Dot-product attention in blocks of queries and keys, which never holds the scores of more than one block.

Dao et al., "FlashAttention", NeurIPS 2022. The forward pass meets the keys block by block and keeps, for each query,
the largest score so far and the sum of the weights relative to it; the backward pass computes the weights again from
both.
Time is n_query * n_key, memory n_query + n_key. On CPUs the gain is that a block stays in the cache.

Scores lie keys by queries, (b, heads, keys, queries): maxima and sums over keys then go along a vector of queries, and
no product contracts the first axis of its left operand, for which XLA has no fast product on CPUs.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .dropout import keep_at

# The tutorial's score for masked keys. A fully masked row becomes uniform instead of NaN.
# As in the tutorial, masked keys win over visible scores below -1e9.
MASKED_SCORE = -1e9

# Queries or keys: with fewer, a block takes longer to begin than to compute.
SMALLEST_BLOCK = 64

Carry = tuple[Any, ...]


@dataclass(frozen=True)
class Side:
    """How queries or keys are cut: into ``count`` blocks of ``size``, the last of which is filled up with zeros."""

    length: int
    size: int

    @property
    def count(self) -> int:
        return (self.length + self.size - 1) // self.size

    def real(self, block: jax.Array) -> jax.Array | None:
        """Which rows (size, 1) of a block are not filled up; None if all blocks are full."""
        if self.length == self.count * self.size:
            return None
        return (block * self.size + jnp.arange(self.size) < self.length)[:, None]


class _Kept(NamedTuple):
    """What the backward pass gets.

    ``largest`` and ``total`` (count, b, heads, 1, size) are each query's largest score and the sum over the keys of
    ``exp(score - largest)``: the log-sum-exp in two parts, for it would be lost in the rounding of a score of -1e9.
    """

    query: jax.Array
    key: jax.Array
    value: jax.Array
    mask: jax.Array | None
    bias: jax.Array | None
    dropped: jax.Array | None
    out: jax.Array
    largest: jax.Array
    total: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8))
def blocked_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    dropped: jax.Array | None,
    rate: float,
    block_scores: int,
    precision: jax.lax.PrecisionLike,
) -> jax.Array:
    """Computes ``softmax(query @ key^T + bias) @ value`` with floats of one dtype.

    It has no forward mode of its own, as a custom VJP, but its gradients have.

    Args:
        query: (b, n_query, heads, d_k), divided by the temperature.
        key: (b, n_key, heads, d_k).
        value: (b, n_key, heads, d_v).
        mask: (b, heads, n_query, n_key), booleans, where axes of size 1 broadcast, or None; False sets the score to
            -1e9.
        bias: Of the same shape, or None.
        dropped: What of the weights dropout keeps: a mask of that shape with no axis left out, None, or (4,): the two
            words of a key as `dropout.keep_at` takes them, and where these queries are a part of more, the number of
            the first of them and how many there are in all.
        rate: The rate of dropout, below 1.
        block_scores: The most scores that a block has, over the batch and all heads, unless it would have fewer than
            `SMALLEST_BLOCK` queries or keys.
        precision: Precision of all matrix products.

    Returns:
        The output (b, n_query, heads, d_v).
    """
    return _forward(query, key, value, mask, bias, dropped, rate, block_scores, precision)[0]


def _forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    dropped: jax.Array | None,
    rate: float,
    block_scores: int,
    precision: jax.lax.PrecisionLike,
) -> tuple[jax.Array, _Kept]:
    queries, keys = _sides(query, key, block_scores)
    q, k, v = _rows(query, queries), _rows(key, keys), _rows(value, keys)
    mask, bias = _tiles(mask, queries, keys), _tiles(bias, queries, keys)
    dropped = dropped if _is_key(dropped) else _tiles(dropped, queries, keys)
    keep = partial(_keep, dropped, rate, queries, keys)

    def of_queries(block: Carry) -> Carry:
        q, i = block

        def of_keys(carry: Carry, block: Carry) -> tuple[Carry, None]:
            out, largest, total = carry
            k, v, j = block
            scores = _scores(q, k, _tile(mask, i, j), _tile(bias, i, j), keys.real(j), precision)
            new = jnp.maximum(largest, jnp.max(scores, axis=2, keepdims=True))
            weights, kept = _exp(scores, new), _exp(largest, new)
            total = total * kept + jnp.sum(weights, axis=2, keepdims=True)
            out = out * kept + jnp.matmul(_transposed(v), keep(i, j, weights), precision=precision)
            return (out, new, total), None

        row = jnp.zeros_like(q[..., :1]).mT
        start = (jnp.zeros((*q.shape[:2], value.shape[-1], queries.size), q.dtype), row - jnp.inf, row)
        (out, largest, total), _ = jax.lax.scan(of_keys, start, (k, v, jnp.arange(keys.count)))
        return out / (total * (1 - rate)), largest, total

    out, largest, total = jax.lax.map(of_queries, (q, jnp.arange(queries.count)))
    out = _join(out.mT, queries)
    return out, _Kept(query, key, value, mask, bias, dropped, out, largest, total)


def _backward(rate: float, block_scores: int, precision: jax.lax.PrecisionLike, kept: _Kept, g: jax.Array) -> Carry:
    query, key, value, mask, bias, dropped, out, largest, total = kept
    queries, keys = _sides(query, key, block_scores)
    keep = partial(_keep, dropped, rate, queries, keys)
    # The sum that divides the weights divides the few numbers of ``g`` instead.
    q, k, v, g = _rows(query, queries), _rows(key, keys), _rows(value, keys), _rows(g, queries) / total.mT
    mean = jnp.sum(_rows(out, queries) * g, axis=-1, keepdims=True).mT
    g = g / (1 - rate)

    def of_queries(carry: Carry, block: Carry) -> tuple[Carry, jax.Array]:
        dk, dv, dbias = carry
        q, g, mean, largest, i = block

        def of_keys(carry: Carry, block: Carry) -> tuple[Carry, Carry]:
            dq, dbias = carry
            k, v, dk, dv, j = block
            visible = _tile(mask, i, j)
            weights = _exp(_scores(q, k, visible, _tile(bias, i, j), keys.real(j), precision), largest)
            dv = dv + jnp.matmul(keep(i, j, weights), g, precision=precision)
            ds = weights * (keep(i, j, jnp.matmul(v, g.mT, precision=precision)) - mean)
            if visible is not None:
                ds = jnp.where(visible, ds, 0)
            dq = dq + jnp.matmul(_transposed(k), ds, precision=precision)
            dk = dk + jnp.matmul(ds, q, precision=precision)
            return (dq, _add_tile(dbias, i, j, ds)), (dk, dv)

        (dq, dbias), (dk, dv) = jax.lax.scan(
            of_keys, (jnp.zeros_like(q.mT), dbias), (k, v, dk, dv, jnp.arange(keys.count))
        )
        return (dk, dv, dbias), dq

    start = (jnp.zeros_like(k), jnp.zeros_like(v), None if bias is None else jnp.zeros_like(bias))
    (dk, dv, dbias), dq = jax.lax.scan(of_queries, start, (q, g, mean, largest, jnp.arange(queries.count)))
    dbias = None if dbias is None else _join_tiles(dbias, queries, keys)
    return _join(dq.mT, queries), _join(dk, keys), _join(dv, keys), None, dbias, None


blocked_attention.defvjp(_forward, _backward)


def _scores(
    q: jax.Array,
    k: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    real: jax.Array | None,
    precision: jax.lax.PrecisionLike,
) -> jax.Array:
    """Scores (b, heads, keys, queries) of one block, -inf for keys that only fill it up."""
    scores = jnp.matmul(k, q.mT, precision=precision)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED_SCORE)
    return scores if real is None else jnp.where(real, scores, -jnp.inf)


def _is_key(dropped: jax.Array | None) -> bool:
    return dropped is not None and dropped.ndim == 1


def _keep(
    dropped: jax.Array | None, rate: float, queries: Side, keys: Side, i: jax.Array, j: jax.Array, block: jax.Array
) -> jax.Array:
    """A block (b, heads, keys, queries) with zeros where dropout drops the weights; the rest is not scaled yet."""
    if dropped is None:
        return block
    if not _is_key(dropped):
        return jnp.where(dropped[i, j], block, 0)
    b, heads = block.shape[:2]
    first = jnp.arange(b * heads, dtype=jnp.uint32).reshape(b, heads, 1, 1) * dropped[3] + dropped[2]
    query, key = ((at * side.size + jnp.arange(side.size)).astype(jnp.uint32) for at, side in ((i, queries), (j, keys)))
    row, column = first + query.reshape(1, 1, 1, -1), key.reshape(1, 1, -1, 1)
    return jnp.where(keep_at(dropped, rate, row, column, keys.length), block, 0)


def _transposed(x: jax.Array) -> jax.Array:
    # Without the barrier XLA would take the transpose back, into a product that it has no fast form of.
    transposed: jax.Array = jax.lax.optimization_barrier(x.mT)
    return transposed


def _exp(scores: jax.Array, largest: jax.Array) -> jax.Array:
    """``exp(scores - largest)``, 0 where both are minus infinity: a block of keys may be hidden by a bias."""
    return jnp.exp(scores - jnp.where(largest == -jnp.inf, 0, largest))


def _sides(query: jax.Array, key: jax.Array, block_scores: int) -> tuple[Side, Side]:
    b, n_query, heads, _ = query.shape
    most = max(math.isqrt(block_scores // (b * heads)), SMALLEST_BLOCK)
    n_key = key.shape[1]
    return Side(n_query, block_size(n_query, most)), Side(n_key, block_size(n_key, most))


def block_size(length: int, most: int) -> int:
    """A size of at most ``most``: the largest divisor, or, if all are small, that of equal blocks."""
    if length <= most:
        return length
    divisors = (size for size in range(most, most // 2, -1) if length % size == 0)
    count = (length + most - 1) // most
    return next(divisors, (length + count - 1) // count)


def cut(x: jax.Array, axis: int, side: Side) -> jax.Array:
    """Cuts an axis into blocks along a new first axis; an axis of size 1, which broadcasts, is one block."""
    if x.shape[axis] == 1:
        return x[None]
    missing = side.count * side.size - side.length
    if missing:
        x = jnp.pad(x, [(0, missing if at == axis else 0) for at in range(x.ndim)])
    return jnp.moveaxis(x.reshape(*x.shape[:axis], side.count, side.size, *x.shape[axis + 1 :]), axis, 0)


def uncut(x: jax.Array, axis: int, side: Side) -> jax.Array:
    """The inverse of `cut`."""
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, min(side.length, x.shape[axis]), axis=axis)


def _rows(x: jax.Array, side: Side) -> jax.Array:
    """(b, n, heads, d) to blocks (count, b, heads, size, d)."""
    return cut(x, 1, side).swapaxes(2, 3)


def _join(x: jax.Array, side: Side) -> jax.Array:
    return uncut(x.swapaxes(2, 3), 1, side)


def _tiles(x: jax.Array | None, queries: Side, keys: Side) -> jax.Array | None:
    """(b, heads, n_query, n_key) to blocks (count of queries, count of keys, b, heads, keys, queries)."""
    return None if x is None else cut(cut(x, 3, keys), 3, queries).mT


def _join_tiles(x: jax.Array, queries: Side, keys: Side) -> jax.Array:
    return uncut(uncut(x.mT, 3, queries), 3, keys)


def _place(tiles: jax.Array, i: jax.Array, j: jax.Array) -> tuple[jax.Array | int, jax.Array | int]:
    """Where the block of queries ``i`` and keys ``j`` lies; an axis that broadcasts has one block for all."""
    return i if tiles.shape[0] > 1 else 0, j if tiles.shape[1] > 1 else 0


def _tile(tiles: jax.Array | None, i: jax.Array, j: jax.Array) -> jax.Array | None:
    return None if tiles is None else tiles[_place(tiles, i, j)]


def _add_tile(tiles: jax.Array | None, i: jax.Array, j: jax.Array, block: jax.Array) -> jax.Array | None:
    """Adds a block of scores, summed over the axes that broadcast."""
    if tiles is None:
        return None
    place = _place(tiles, i, j)
    axes = [axis for axis, size in enumerate(tiles.shape[2:]) if size == 1]
    tile = tiles[place] + jnp.sum(block, axis=axes, keepdims=True)
    return jax.lax.dynamic_update_slice(tiles, tile[None, None], (*place, 0, 0, 0, 0))
