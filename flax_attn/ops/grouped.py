"""Convolutions, of which those in groups of channels and of volumes take forms that suit CPUs.

On CPUs, XLA takes convolutions in groups by a plain loop, which takes up to a hundred times as long as it should,
forward and backward. Where each channel is convolved by itself they are sums of shifted maps, and else convolutions of
neighbouring groups together. Convolutions of volumes by a kernel that is flat in the third dimension are as slow, and
are taken as those of its slices. Elsewhere they are left to XLA, as is everything else to `conv`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from . import conv
from .conv import AXES, DTYPES, Padding
from .placement import is_automatic

VOLUME_AXES = ("NHWDC", "HWDIO", "NHWDC")
CHANNELS_AT_ONCE = 32  # of neighbouring groups, in a convolution whose kernel has zeros between them


def conv_general_dilated(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: str | Sequence[tuple[int, int]], **options: Any
) -> jax.Array:
    """`jax.lax.conv_general_dilated` of channels-last arrays, with its arguments.

    The forms for CPUs have no forward-mode derivatives, as custom backward passes have none. A NaN or infinity shows in
    neighbouring groups of channels if it shows in one of them, and as `conv.conv_general_dilated` says.

    Example:
        >>> x, kernel = jnp.ones((2, 5, 7, 6)), jnp.ones((3, 3, 1, 6))
        >>> conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), feature_group_count=6).shape
        (2, 5, 7, 6)
    """
    if x.ndim == 5 and _is_flat(x, kernel, strides, padding, **options):
        return _conv_of_slices(x, kernel, strides, padding, options.get("precision"))
    if options.get("feature_group_count", 1) == 1 or isinstance(padding, str) or not _is_usual(x, kernel, **options):
        return conv.conv_general_dilated(x, kernel, strides, padding, **options)
    dilation = tuple(options.get("rhs_dilation") or (1, 1))
    how = _Groups(tuple(strides), tuple((low, high) for low, high in padding), dilation, options["feature_group_count"])
    return _conv(x, kernel, how, options.get("precision"))


def _is_usual(
    x: jax.Array,
    kernel: jax.Array,
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,  # any
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,  # any
    **others: Any,
) -> bool:
    """Whether a convolution is one of maps, of a dtype and sizes that the forms for CPUs take."""
    if jax.default_backend() != "cpu" or not is_automatic(x, kernel):
        return False
    if x.ndim != 4 or any(other is not None for other in others.values()) or {*(lhs_dilation or (1,))} != {1}:
        return False
    axes = lax.conv_dimension_numbers(x.shape, kernel.shape, AXES)
    if dimension_numbers not in (None, AXES, axes) or x.shape[3] != kernel.shape[2] * feature_group_count:
        return False
    return x.dtype == kernel.dtype and x.dtype.name in DTYPES and all(isinstance(size, int) for size in x.shape)


def _is_flat(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    precision: lax.PrecisionLike = None,  # any
    **others: Any,
) -> bool:
    """Whether a convolution of volumes (b, h, w, d, c) is one of each slice (h, w), without strides or dilation."""
    if jax.default_backend() != "cpu" or not is_automatic(x, kernel) or isinstance(padding, str):
        return False
    if any(other not in (None, 1) for other in others.values()):
        return False
    axes = lax.conv_dimension_numbers(x.shape, kernel.shape, VOLUME_AXES)
    if dimension_numbers not in (VOLUME_AXES, axes) or not all(isinstance(size, int) for size in x.shape):
        return False
    steps = {*strides, *(lhs_dilation or (1,)), *(rhs_dilation or (1,))}
    return steps == {1} and kernel.shape[2] == 1 and tuple(padding[2]) == (0, 0)


def _conv_of_slices(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, precision: lax.PrecisionLike
) -> jax.Array:
    b, h, w, depth, c = x.shape
    slices = jnp.moveaxis(x, 3, 1).reshape(b * depth, h, w, c)
    out = conv.conv_general_dilated(slices, kernel[:, :, 0], strides[:2], padding[:2], precision=precision)
    return jnp.moveaxis(out.reshape(b, depth, *out.shape[1:]), 1, 3)


@dataclass(frozen=True)
class _Groups:
    """How a convolution in groups of channels is taken."""

    strides: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    count: int


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, kernel: jax.Array, how: _Groups, precision: lax.PrecisionLike) -> jax.Array:
    out: jax.Array = _of_platform(_forms(kernel, how, precision), x, kernel)
    return out


def _forward(
    x: jax.Array, kernel: jax.Array, how: _Groups, precision: lax.PrecisionLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(x, kernel, how, precision), (x, kernel)


def _backward(
    how: _Groups, precision: lax.PrecisionLike, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def gradients(form: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> Any:
        return jax.vjp(form, x, kernel)[1](gradient)

    forms = [partial(gradients, form) for form in _forms(residuals[1], how, precision)]
    if _is_of_each_channel(residuals[1], how) and set(how.strides) == {1}:
        forms[0] = partial(_gradients_of_shifts, how=how)
    of_both: tuple[jax.Array, jax.Array] = _of_platform(forms, *residuals, gradient)
    return of_both


_conv.defvjp(_forward, _backward)


def _forms(
    kernel: jax.Array, how: _Groups, precision: lax.PrecisionLike
) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """The form for CPUs and that for other devices."""
    plain = partial(
        lax.conv_general_dilated,
        window_strides=how.strides,
        padding=how.padding,
        rhs_dilation=how.dilation,
        dimension_numbers=AXES,
        feature_group_count=how.count,
        precision=precision,
    )
    if _is_of_each_channel(kernel, how):
        return partial(_sum_of_shifts, how=how), plain
    return partial(_conv_of_neighbours, how=how, precision=precision), plain


def _is_of_each_channel(kernel: jax.Array, how: _Groups) -> bool:
    return kernel.shape[2] == 1 and kernel.shape[3] == how.count


def _sum_of_shifts(x: jax.Array, kernel: jax.Array, how: _Groups) -> jax.Array:
    """A convolution of each channel by itself, as products with single weights, which XLA fuses into one loop."""
    x = jnp.pad(x, ((0, 0), *how.padding, (0, 0)))
    places: list[list[slice]] = []
    for axis in (0, 1):
        reach = how.dilation[axis] * (kernel.shape[axis] - 1)
        length = max(0, (x.shape[1 + axis] - reach - 1) // how.strides[axis] * how.strides[axis] + 1)
        starts = range(0, reach + 1, how.dilation[axis])
        places.append([slice(start, start + length, how.strides[axis]) for start in starts])
    rows, columns = (list(enumerate(slices)) for slices in places)
    products = [x[:, row, column] * kernel[i : i + 1, j : j + 1] for i, row in rows for j, column in columns]
    return sum(products[1:], products[0])


def _gradients_of_shifts(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, how: _Groups
) -> tuple[jax.Array, jax.Array]:
    """The gradients of `_sum_of_shifts` without strides: that of the input is such a sum of the gradient's shifts."""
    reaches = [step * (size - 1) for step, size in zip(how.dilation, kernel.shape[:2], strict=True)]
    pads = tuple((reach - low, reach - high) for reach, (low, high) in zip(reaches, how.padding, strict=True))
    # What is padded beyond the kernel has outputs that meet no input.
    top, left = (
        slice(max(0, -low), size - max(0, -high)) for (low, high), size in zip(pads, gradient.shape[1:3], strict=True)
    )
    back = replace(how, padding=tuple((max(0, low), max(0, high)) for low, high in pads))
    of_x = _sum_of_shifts(gradient[:, top, left], kernel[::-1, ::-1], back)
    of_kernel: jax.Array = jax.vjp(lambda kernel: _sum_of_shifts(x, kernel, how), kernel)[1](gradient)[0]
    return of_x, of_kernel


def _conv_of_neighbours(x: jax.Array, kernel: jax.Array, how: _Groups, precision: lax.PrecisionLike) -> jax.Array:
    """Takes neighbouring groups at once, by a kernel with zeros between them."""
    height, width, inner, out_channels = kernel.shape
    size = max(1, CHANNELS_AT_ONCE // inner)
    outer, parts = out_channels // how.count, []
    for first in range(0, how.count, size):
        count = min(size, how.count - first)
        groups = kernel[..., first * outer : (first + count) * outer].reshape(height, width, inner, count, outer)
        spread = jnp.einsum("hwigo,fg->hwfigo", groups, jnp.eye(count, dtype=kernel.dtype))
        parts.append(
            conv.conv_general_dilated(
                x[..., first * inner : (first + count) * inner],
                spread.reshape(height, width, count * inner, count * outer),
                how.strides,
                how.padding,
                rhs_dilation=how.dilation,
                precision=precision,
            )
        )
    return jnp.concatenate(parts, axis=-1)


def _of_platform(forms: Sequence[Callable[..., Any]], *arrays: jax.Array) -> Any:
    return lax.platform_dependent(*arrays, cpu=forms[0], default=forms[1])
