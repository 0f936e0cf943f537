"""Pooling with PyTorch's values *and* PyTorch's gradients.

When several elements tie for the maximum, PyTorch gives the whole gradient to the first in row-major order, while
``jnp.max`` splits it evenly. Uniform image regions make ties common, so the maxima here select the first.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from .._check import check_choice
from .dtype import cast, score_dtype
from .norms import safe_norm

POOL_TYPES = ("avg", "max", "lp", "lse")


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def max_first(x: jax.Array, axis: int) -> jax.Array:
    """Maximum over ``axis``, kept with size 1; the gradient goes to the first occurrence.

    Example:
        >>> jax.grad(lambda x: max_first(x, -1).sum())(jnp.array([3.0, 1.0, 3.0])).tolist()
        [1.0, 0.0, 0.0]
    """
    return jnp.max(x, axis=axis, keepdims=True)  # on CPUs many times faster than ``argmax``


@max_first.defjvp
def _max_first_jvp(axis: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (change,) = primals, tangents
    # Not by comparing x with its maximum: XLA may compute x in two fusions, round it in two ways, and find it nowhere.
    index = jnp.argmax(x, axis=axis, keepdims=True)
    return jnp.take_along_axis(x, index, axis=axis), jnp.take_along_axis(change, index, axis=axis)


def global_pool(x: jax.Array, pool_type: str) -> jax.Array:
    """Pools a map (b, h, w, c) over all pixels to (b, c).

    ``avg`` is the mean, ``max`` the maximum, ``lp`` = (sum x^2)^(1/2) and ``lse`` = log sum exp x, both without 1/n.
    ``lp`` has gradient 0 at zero. ``lse`` of only negative infinities is NaN, as in CBAM's published code
    (``torch.logsumexp`` gives -inf).

    Raises:
        ValueError: If the pool type is unknown.

    Example:
        >>> global_pool(jnp.full((1, 2, 2, 1), 3.0), "lp").tolist()
        [[6.0]]
    """
    check_choice("pool_type", pool_type, POOL_TYPES)
    pixels = jnp.reshape(cast(x, None), (x.shape[0], -1, x.shape[-1]))
    if pool_type == "avg":
        return jnp.mean(pixels, axis=1)
    if pool_type == "max":
        return max_first(pixels, 1)[:, 0]
    if pool_type == "lp":
        return safe_norm(pixels, 1)
    return _log_sum_exp(pixels)


def _log_sum_exp(pixels: jax.Array) -> jax.Array:
    # At least float32, since the gradient of ``top`` is a sum over all pixels.
    wide = pixels.astype(score_dtype(pixels.dtype))
    top = max_first(wide, 1)
    return (top[:, 0] + jnp.log(jnp.sum(jnp.exp(wide - top), axis=1))).astype(pixels.dtype)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Max-pools (b, h, w, c) over 2x2 windows to (b, h//2, w//2, c), dropping an odd last row or column.

    Selects pairwise, with the same result and gradient as ``lax.reduce_window``, whose backward pass is slow on CPUs.

    Example:
        >>> max_pool_2x2(jnp.arange(9.0).reshape(1, 3, 3, 1)).ravel().tolist()
        [4.0]
    """
    b, h, w, c = x.shape
    windows = jnp.reshape(x[:, : h // 2 * 2, : w // 2 * 2], (b, h // 2, 2, w // 2, 2, c))
    rows = _first_larger(windows[:, :, :, :, 0], windows[:, :, :, :, 1])
    return _first_larger(rows[:, :, 0], rows[:, :, 1])


def _first_larger(first: jax.Array, second: jax.Array) -> jax.Array:
    # NaNs propagate, as in PyTorch.
    return jnp.where((second > first) | jnp.isnan(second), second, first)


def adaptive_avg_pool(x: jax.Array, size: Sequence[int | None]) -> jax.Array:
    """Averages (b, *spatial, c) over bins to (b, *size, c), as PyTorch's AdaptiveAvgPool; None leaves an axis as it is.

    Bin i of n along an axis of length l covers [floor(i*l/n), ceil((i+1)*l/n)).

    Example:
        >>> adaptive_avg_pool(jnp.arange(5.0).reshape(1, 5, 1, 1), (2, 1)).ravel().tolist()
        [1.0, 3.0]
    """
    for axis, bins in enumerate(size, start=1):
        x = x if bins is None else _average_bins(x, axis, bins)
    return x


def _average_bins(x: jax.Array, axis: int, bins: int) -> jax.Array:
    length = x.shape[axis]
    if bins == length:
        return x
    if bins == 1:
        return jnp.mean(x, axis=axis, keepdims=True)
    # With numbers of JAX, as the length may be symbolic.
    places, bin = jnp.arange(length)[:, None], jnp.arange(bins)[None]
    low, high = bin * length // bins, -(-(bin + 1) * length // bins)
    weights = jnp.where((places >= low) & (places < high), 1 / (high - low).astype(score_dtype(x.dtype)), 0)
    pooled = jnp.tensordot(x, weights.astype(x.dtype), axes=(axis, 0), precision="highest")
    return jnp.moveaxis(pooled, -1, axis)
