"""Convolutions whose kernel's gradient, and whose results from few channels, are computed in forms that suit CPUs.

On CPUs, XLA takes the gradient of a kernel as a convolution that contracts the images of a batch, which is slow while
they are few, and vectorises a convolution over its input channels, which is slow while those are few. A 1x1
convolution is a product of matrices, which XLA takes faster if it is told so. A map, or a gradient, with fewer places
than the kernel makes XLA fall back to a plain loop, which takes a hundred times as long as a product for each place of
the output. Where JAX's default device is another one all are left to XLA, and so is everything that `_is_plain` names.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .placement import is_automatic

AXES = ("NHWC", "HWIO", "NHWC")
FEW_IMAGES = 32  # XLA contracts more of them well
FEW_CHANNELS = 8
FEW_PLACES = 16  # of the output: as many products
DTYPES = ("float32", "float64")

Padding = tuple[tuple[int, int], ...]
Covered = tuple[slice, slice]


def conv_general_dilated(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: str | Sequence[tuple[int, int]], **options: Any
) -> jax.Array:
    """`jax.lax.conv_general_dilated` of channels-last arrays, with its arguments.

    The forms for CPUs have no forward-mode derivatives, as custom backward passes have none; that of few places has.
    A NaN or infinity shows in a whole group of up to eight columns, or two groups, if it shows in one of them and the
    channels are few.

    Example:
        >>> x, kernel = jnp.ones((2, 5, 7, 3)), jnp.ones((3, 3, 3, 11))
        >>> conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1))).shape
        (2, 5, 7, 11)
    """
    if _is_plain(x, kernel, strides, padding, **options):
        return lax.conv_general_dilated(x, kernel, strides, padding, **{"dimension_numbers": AXES, **options})
    if _has_few_places(x, kernel, strides, padding):
        return _product_per_place(x, kernel, strides, padding, options.get("precision"))
    if kernel.shape[:2] == (1, 1):
        return _product(x, kernel, options.get("precision"))
    return _conv(x, kernel, tuple(map(tuple, padding)), options.get("precision"))


def _is_plain(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,  # changes nothing
    **others: Any,
) -> bool:
    """Whether a convolution is left to XLA."""
    if jax.default_backend() != "cpu" or not is_automatic(x, kernel):
        return True
    if x.ndim != 4 or isinstance(padding, str) or any(other is not None for other in others.values()):
        return True
    axes = lax.conv_dimension_numbers(x.shape, kernel.shape, AXES)
    if dimension_numbers not in (None, AXES, axes) or x.shape[3] != kernel.shape[2]:
        return True
    if {*(lhs_dilation or (1,)), *(rhs_dilation or (1,)), feature_group_count} != {1}:
        return True
    if not (x.dtype == kernel.dtype and x.dtype.name in DTYPES and all(isinstance(size, int) for size in x.shape)):
        return True
    sizes, in_channels = kernel.shape[:2], kernel.shape[2]
    if not all(0 <= pad < size for pads, size in zip(padding, sizes, strict=True) for pad in pads):
        return True
    if _has_few_places(x, kernel, strides, padding):
        return False
    if set(strides) != {1}:
        return True
    return sizes != (1, 1) and x.shape[0] >= FEW_IMAGES and in_channels >= FEW_CHANNELS


def _covered(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, axis: int) -> list[Covered]:
    """For each row (axis 0) or column (1) of the output, which of the input and of the kernel meet there."""
    length, size, (low, high) = x.shape[1 + axis], kernel.shape[axis], padding[axis]
    starts = range(-low, length + high - size + 1, strides[axis])
    return [
        (slice(max(start, 0), min(start + size, length)), slice(max(-start, 0), min(length - start, size)))
        for start in starts
    ]


def _has_few_places(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any) -> bool:
    """Whether the output, whose gradient is convolved backward, has fewer places than the kernel."""
    rows, columns = (len(_covered(x, kernel, strides, padding, axis)) for axis in (0, 1))
    return 0 < rows * columns <= min(FEW_PLACES, math.prod(kernel.shape[:2]) - 1)


def _product_per_place(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, precision: lax.PrecisionLike
) -> jax.Array:
    """A convolution as a product for each place of its output, with the part of the kernel that meets the map."""
    rows, columns = (_covered(x, kernel, strides, padding, axis) for axis in (0, 1))
    b, out_channels = x.shape[0], kernel.shape[3]
    out = [
        jnp.matmul(x[:, top, left].reshape(b, -1), kernel[upper, lower].reshape(-1, out_channels), precision=precision)
        for top, upper in rows
        for left, lower in columns
    ]
    return jnp.stack(out, axis=1).reshape(b, len(rows), len(columns), out_channels)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike) -> jax.Array:
    plain = partial(_plain, padding=padding, precision=precision)
    of_groups = partial(_conv_of_groups, padding=padding, precision=precision)
    return _on_cpu(of_groups, plain, x, kernel) if _group(*kernel.shape[2:]) > 1 else plain(x, kernel)


def _group(in_channels: int, out_channels: int) -> int:
    """How many neighbours of a row are best taken for one pixel."""
    if 2 * in_channels > FEW_CHANNELS:
        return 1
    return 2 if out_channels >= FEW_CHANNELS else FEW_CHANNELS


def _on_cpu(function: Callable[..., jax.Array], elsewhere: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    out: jax.Array = lax.platform_dependent(*arrays, cpu=function, default=elsewhere)
    return out


def _forward(
    x: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(x, kernel, padding, precision), (x, kernel)


def _backward(
    padding: Padding, precision: lax.PrecisionLike, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    plain = partial(_plain, padding=padding, precision=precision)

    def plain_of_kernel(x: jax.Array, gradient: jax.Array) -> jax.Array:
        of_kernel: jax.Array = jax.vjp(partial(plain, x), kernel)[1](gradient)[0]
        return of_kernel

    def plain_of_x(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
        of_x: jax.Array = jax.vjp(lambda x: plain(x, kernel), x)[1](gradient)[0]
        return of_x

    def of_groups(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
        turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
        pads = [(size - 1 - low, size - 1 - high) for size, (low, high) in zip(kernel.shape[:2], padding, strict=True)]
        return _conv_of_groups(gradient, turned, tuple(pads), precision)

    of_rows = partial(_kernel_gradient, sizes=kernel.shape[:2], padding=padding, precision=precision)
    of_kernel = _on_cpu(of_rows, plain_of_kernel, x, gradient)
    if _group(*reversed(kernel.shape[2:])) > 1:
        return _on_cpu(of_groups, plain_of_x, gradient, kernel), of_kernel
    return plain_of_x(gradient, kernel), of_kernel


_conv.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    """A convolution with a 1x1 kernel."""
    return jnp.tensordot(x, kernel[0, 0], 1, precision=precision)


def _forward_product(
    x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x, kernel, precision), (x, kernel)


def _backward_product(
    precision: lax.PrecisionLike, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    of_x = jnp.tensordot(gradient, kernel[0, 0].T, 1, precision=precision)
    # XLA takes a product fast if the left operand lies with the contracted axis last, and would undo the transpose.
    channels_first = lax.optimization_barrier(x.reshape(-1, x.shape[3]).T)
    of_kernel = jnp.matmul(channels_first, gradient.reshape(-1, gradient.shape[3]), precision=precision)
    return of_x, of_kernel[None, None]


_product.defvjp(_forward_product, _backward_product)


def _plain(x: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=AXES, precision=precision)


def _length(x: jax.Array, kernel: jax.Array, padding: Padding, axis: int) -> int:
    """The number of rows (axis 0) or columns (1) of the output."""
    return x.shape[1 + axis] + sum(padding[axis]) - kernel.shape[axis] + 1


def _conv_of_groups(x: jax.Array, kernel: jax.Array, padding: Padding, precision: lax.PrecisionLike) -> jax.Array:
    """Takes a group of neighbours in a row for one pixel with as many times the channels, on both sides."""
    b, h, w, c = x.shape
    height, width, _, out_channels = kernel.shape
    rows, columns = (_length(x, kernel, padding, axis) for axis in (0, 1))
    size = _group(c, out_channels)
    groups, more = -(-columns // size), -(-(width - 1) // size)  # of the output; of the input beside one of them
    left = padding[1][0]
    x = jnp.pad(x, ((0, 0), (0, 0), (left, (groups + more) * size - w - left), (0, 0)))
    # For each further one of a group, the kernel is one further to the right.
    shifted = [jnp.pad(kernel, ((0, 0), (j, (1 + more) * size - width - j), (0, 0), (0, 0))) for j in range(size)]
    kernel = jnp.stack(shifted, axis=3).reshape(height, 1 + more, size * c, size * out_channels)
    out = _plain(x.reshape(b, h, groups + more, size * c), kernel, (padding[0], (0, 0)), precision)
    return out.reshape(b, rows, groups * size, out_channels)[:, :, :columns]


def _kernel_gradient(
    x: jax.Array, gradient: jax.Array, sizes: Sequence[int], padding: Padding, precision: lax.PrecisionLike
) -> jax.Array:
    """The kernel's gradient as a convolution over rows, with all columns of all images as its channels.

    What is contracted is then long. The kernel's columns are shifts of the side with fewer channels: of ``x`` along the
    batch of that convolution, or of ``gradient`` along its output.
    """
    height, width = sizes
    in_channels, out_channels = x.shape[-1], gradient.shape[-1]
    left, right = padding[1]
    shift_x = in_channels < out_channels
    if shift_x:
        x = _shifts(x, (left, right), gradient.shape[2], range(width))
    else:
        gradient = _shifts(gradient, (width - 1 - left, width - 1 - right), x.shape[2], reversed(range(width)))
    b, rows, columns, _ = gradient.shape
    of_rows = lax.conv_general_dilated(
        jnp.transpose(x, (3, 1, 0, 2)).reshape(x.shape[3], x.shape[1], b * columns),
        jnp.transpose(gradient, (1, 0, 2, 3)).reshape(rows, b * columns, gradient.shape[3]),
        (1,),
        padding[:1],
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=precision,
    )
    if shift_x:
        return jnp.transpose(of_rows.reshape(width, in_channels, height, out_channels), (2, 0, 1, 3))
    return jnp.transpose(of_rows.reshape(in_channels, height, width, out_channels), (1, 2, 0, 3))


def _shifts(x: jax.Array, pads: tuple[int, int], columns: int, starts: Any) -> jax.Array:
    """Stacks the channels of (b, h, w, c), padded along its rows, from each start on: (b, h, columns, starts * c)."""
    x = jnp.pad(x, ((0, 0), (0, 0), pads, (0, 0)))
    return jnp.concatenate([x[:, :, start : start + columns] for start in starts], axis=-1)
