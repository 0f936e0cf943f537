"""Max, average and adaptive average pooling with PyTorch's arguments."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from .axes import IntOrAxes, kernel_axes, per_axis


class MaxPool(nnx.Module):
    """Maximum over windows of (b, *spatial, c); among equals, the first gets the gradient.

    Args:
        kernel_size: One number for two spatial axes, as in ``torch.nn.MaxPool2d``, or a tuple of one to three.
        stride: Distance between windows, one number or one per axis; None for ``kernel_size``.
        padding: Number of positions of minus infinity on each side, at most half of the kernel.
        dilation: Only 1, as JAX cannot differentiate another.
        ceil_mode: Whether a last window may reach beyond the padded array; not for symbolic sizes.

    Raises:
        ValueError: If a size is too small, there are not as many as axes, or the dilation is not 1.

    Example:
        >>> MaxPool(2)(jnp.arange(8.0).reshape(1, 2, 4, 1)).ravel().tolist()
        [5.0, 7.0]
    """

    def __init__(
        self,
        kernel_size: IntOrAxes,
        stride: IntOrAxes | None = None,
        padding: IntOrAxes = 0,
        dilation: IntOrAxes = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        self.windows = _windows(kernel_size, stride, padding, ceil_mode)
        self.kernel_size, self.stride, self.padding = self.windows.kernel, self.windows.stride, self.windows.padding
        if set(per_axis("dilation", dilation, len(self.windows.kernel))) != {1}:
            raise ValueError(f"dilation must be 1, as JAX cannot differentiate a dilated maximum, got {dilation!r}")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pools (b, *spatial, c)."""
        return self.windows.reduce(ops.cast(x, None), -jnp.inf, jax.lax.max, self.windows.pads(x))


class AvgPool(nnx.Module):
    """Mean over windows of (b, *spatial, c).

    Args:
        kernel_size: One number for two spatial axes, as in ``torch.nn.AvgPool2d``, or a tuple of one to three.
        stride: Distance between windows, one number or one per axis; None for ``kernel_size``.
        padding: Number of zeros on each side, at most half of the kernel.
        ceil_mode: Whether a last window may reach beyond the padded array, where nothing counts; not for symbolic
            sizes.
        count_include_pad: Whether the zeros of the padding count.
        divisor_override: Divisor of the sums, in place of the number of elements that count.

    Raises:
        ValueError: If a size is too small, or there are not as many as axes.

    Example:
        >>> AvgPool((2,), 1, padding=1)(jnp.array([1.0, 3.0]).reshape(1, 2, 1)).ravel().tolist()
        [0.5, 2.0, 1.5]
    """

    def __init__(
        self,
        kernel_size: IntOrAxes,
        stride: IntOrAxes | None = None,
        padding: IntOrAxes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self.windows = _windows(kernel_size, stride, padding, ceil_mode)
        self.kernel_size, self.stride, self.padding = self.windows.kernel, self.windows.stride, self.windows.padding
        if divisor_override is not None:
            check_positive(divisor_override=divisor_override)
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pools (b, *spatial, c)."""
        windows, pads = self.windows, self.windows.pads(x)
        x = ops.cast(x, None)
        wide = x.astype(ops.score_dtype(x.dtype))
        total = windows.reduce(wide, 0.0, jax.lax.add, pads)
        if self.divisor_override is not None:
            return (total / self.divisor_override).astype(x.dtype)
        if not windows.ceil_mode and (self.count_include_pad or not any(windows.padding)):
            return (total / math.prod(windows.kernel)).astype(x.dtype)
        counted = jnp.ones((1, *x.shape[1:-1], 1), wide.dtype)
        both = [(0, 0), *((pad, pad) for pad in windows.padding), (0, 0)]
        counted = jnp.pad(counted, both, constant_values=float(self.count_include_pad))
        beyond = [(0, high - pad) for pad, (_, high) in zip(windows.padding, pads, strict=True)]
        return (total / windows.reduce(counted, 0.0, jax.lax.add, beyond)).astype(x.dtype)


class AdaptiveAvgPool(nnx.Module):
    """Mean over as many bins as asked for, (b, *spatial, c) -> (b, *output_size, c), whatever the size of the input.

    Bin i of n along an axis of length l covers [floor(i*l/n), ceil((i+1)*l/n)), so bins overlap where n does not
    divide l.

    Args:
        output_size: One number for two spatial axes, as in ``torch.nn.AdaptiveAvgPool2d``, or a tuple of one to three;
            None leaves an axis as it is.

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> AdaptiveAvgPool((2,))(jnp.arange(5.0).reshape(1, 5, 1)).ravel().tolist()
        [1.0, 3.0]
    """

    def __init__(self, output_size: int | Sequence[int | None] | None) -> None:
        size = tuple(output_size) if isinstance(output_size, Sequence) else (output_size, output_size)
        check_positive(**{f"output_size[{axis}]": bins for axis, bins in enumerate(size) if bins is not None})
        if not 1 <= len(size) <= 3:
            raise ValueError(f"output_size must be a whole number or one to three of them, got {output_size!r}")
        self.output_size = size

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pools (b, *spatial, c)."""
        _check_rank(x, len(self.output_size))
        return ops.adaptive_avg_pool(ops.cast(x, None), self.output_size)


@dataclass(frozen=True)
class _Windows:
    """Where the windows of a pool lie."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool

    def pads(self, x: jax.Array) -> list[tuple[int, int]]:
        """How many positions lie before and behind each spatial axis of ``x``."""
        _check_rank(x, len(self.kernel))
        pads = []
        for length, size, step, pad in zip(x.shape[1:-1], self.kernel, self.stride, self.padding, strict=True):
            behind = pad
            if self.ceil_mode and not isinstance(length, int):
                raise ValueError(f"ceil_mode must be False for symbolic sizes, got x of shape {x.shape}")
            if self.ceil_mode:
                last = -(-(length + 2 * pad - size) // step) * step  # where the last window starts
                last -= step * (last >= length + pad)  # which it may not do behind the array
                behind = max(last + size - length - pad, pad)
            pads.append((pad, behind))
        return pads

    def reduce(self, x: jax.Array, start: float, combine: Any, pads: list[tuple[int, int]]) -> jax.Array:
        """Combines the elements of each window of ``x``."""
        reduced: jax.Array = jax.lax.reduce_window(
            x, start, combine, (1, *self.kernel, 1), (1, *self.stride, 1), [(0, 0), *pads, (0, 0)]
        )
        return reduced


def _windows(kernel_size: IntOrAxes, stride: IntOrAxes | None, padding: IntOrAxes, ceil_mode: bool) -> _Windows:
    kernel = kernel_axes(kernel_size)
    steps = kernel if stride is None else per_axis("stride", stride, len(kernel))
    pads = per_axis("padding", padding, len(kernel), minimum=0)
    if any(2 * pad > size for pad, size in zip(pads, kernel, strict=True)):
        raise ValueError(f"padding must be at most half of kernel_size={kernel_size!r}, got {padding!r}")
    return _Windows(kernel, steps, pads, ceil_mode)


def _check_rank(x: jax.Array, rank: int) -> None:
    check_shape("x", x, " ".join(["b", *"dhw"[3 - rank :], "c"]))
