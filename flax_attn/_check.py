"""Checks of arguments; every message gives argument, expected and got."""

import difflib
import math
import numbers
from collections.abc import Sequence
from typing import Protocol


class HasShape(Protocol):
    """Anything with a shape: a jax, numpy or torch array."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def check_shape(argument: str, array: HasShape, layout: str, **sizes: int | None) -> None:
    """Raises ``ValueError`` unless ``array`` has one axis per name of ``layout``, with the given sizes.

    A size of None allows any size but 0, and any symbolic one (``jax.export``), which equals itself alone.

    Example:
        >>> import numpy as np
        >>> check_shape("x", np.zeros((2, 5, 7, 3)), "b h w c", c=3)
        >>> check_shape("x", np.zeros((2, 5, 7, 3)), "b h w c", c=4)
        Traceback (most recent call last):
        ...
        ValueError: x must have shape (b, h, w, c=4), got (2, 5, 7, 3)
    """
    if not hasattr(array, "shape"):
        raise ValueError(f"{argument} must be an array, got {type(array).__name__}")
    names = layout.split()
    shape = tuple(array.shape)
    wanted = [sizes.get(name) for name in names]
    fits = len(shape) == len(names) and all(
        not is_below(got, 1) and want in (None, got) for want, got in zip(wanted, shape, strict=True)
    )
    if not fits:
        expected = ", ".join(
            name if want is None else f"{name}={want}" for name, want in zip(names, wanted, strict=True)
        )
        empty = ", no axis of size 0" if 0 in shape else ""
        raise ValueError(f"{argument} must have shape ({expected}){empty}, got {shape}")


def check_several_pixels(argument: str, array: HasShape) -> None:
    """Raises ``ValueError`` if a map (b, h, w, c) has a single pixel, which has no unbiased variance.

    Example:
        >>> import numpy as np
        >>> check_several_pixels("x", np.zeros((2, 1, 1, 3)))
        Traceback (most recent call last):
        ...
        ValueError: x must have at least 2 pixels, got shape (2, 1, 1, 3)
    """
    _, h, w, _ = array.shape
    if is_below(h * w, 2):
        raise ValueError(f"{argument} must have at least 2 pixels, got shape {tuple(array.shape)}")


def is_below(size: int, minimum: int) -> bool:
    """Whether a size is below a minimum; a symbolic one (``jax.export``), which cannot be compared, counts as above.

    Example:
        >>> is_below(3, 4), is_below(4, 4)
        (True, False)
    """
    return isinstance(size, int) and size < minimum


def check_reach(argument: str, array: HasShape, reach: Sequence[int], padding: int) -> None:
    """Raises ``ValueError`` unless a map (b, h, w, c), padded on each side, holds a kernel that spans ``reach``.

    Example:
        >>> import numpy as np
        >>> check_reach("x", np.zeros((2, 5, 7, 3)), (9, 5), padding=1)
        Traceback (most recent call last):
        ...
        ValueError: x must have h >= 7 for a kernel that spans 9, got 5
    """
    for name, span, size in zip("hw", reach, array.shape[1:3], strict=True):
        if is_below(size, span - 2 * padding):
            raise ValueError(
                f"{argument} must have {name} >= {span - 2 * padding} for a kernel that spans {span}, got {size}"
            )


def check_positive(minimum: int = 1, **arguments: int) -> None:
    """Raises ``ValueError`` unless every argument is a whole number of at least ``minimum``.

    Example:
        >>> check_positive(num_heads=4)
        >>> check_positive(num_heads=0)
        Traceback (most recent call last):
        ...
        ValueError: num_heads must be a whole number >= 1, got 0
    """
    for name, value in arguments.items():
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < minimum:
            raise ValueError(f"{name} must be a whole number >= {minimum}, got {value!r}")


def check_odd(**arguments: int) -> None:
    """Raises ``ValueError`` unless every argument is an odd whole number of at least 1."""
    check_positive(**arguments)
    for name, value in arguments.items():
        if value % 2 == 0:
            raise ValueError(f"{name} must be odd, got {value}")


def check_rate(argument: str, rate: float) -> None:
    """Raises ``ValueError`` unless ``rate`` is a probability."""
    if not (is_number(rate) and 0.0 <= rate <= 1.0):
        raise ValueError(f"{argument} must lie in [0, 1], got {rate!r}")


def check_temperature(temperature: float, *, positive: bool = False) -> None:
    """Raises ``ValueError`` unless ``temperature`` is a finite number other than 0, or above 0."""
    if not is_number(temperature) or temperature == 0 or (positive and temperature < 0):
        wanted = "above 0" if positive else "other than 0"
        raise ValueError(f"temperature must be a finite number {wanted}, got {temperature!r}")


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite real number."""
    return isinstance(value, numbers.Real) and math.isfinite(value)


def check_ratio(argument: str, ratio: int, channels: int) -> None:
    """Raises ``ValueError`` unless ``channels // ratio`` leaves at least one hidden unit."""
    check_positive(**{argument: ratio, "channels": channels})
    if ratio > channels:
        raise ValueError(
            f"{argument} must be at most {channels}, the number of channels, to leave a hidden unit, got {ratio}"
        )


def check_heads(num_heads: int, **channels: int) -> None:
    """Raises ``ValueError`` unless ``num_heads`` divides the numbers of channels.

    Example:
        >>> check_heads(4, dim=32)
        >>> check_heads(5, dim=32)
        Traceback (most recent call last):
        ...
        ValueError: num_heads must divide dim=32, got 5
    """
    check_positive(num_heads=num_heads, **channels)
    for name, number in channels.items():
        if number % num_heads:
            raise ValueError(f"num_heads must divide {name}={number}, got {num_heads}")


def check_choice(argument: str, value: object, choices: Sequence[object]) -> None:
    """Raises ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def nearest(name: object, names: Sequence[str]) -> str:
    """The end of an error message about an unknown name: the nearest of the known ones, or all of them.

    Example:
        >>> nearest("cbma", ["cbam", "eca"]), nearest("x", ["cbam", "eca"])
        ("did you mean 'cbam'?", 'available: cbam, eca')
    """
    near = difflib.get_close_matches(str(name), names)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"available: {', '.join(names)}"
