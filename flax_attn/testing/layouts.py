"""Layouts: how the axes of an array in PyTorch, ``b c h w``, are ordered in Flax.

A layout is an einops pattern, ``"b c h w -> b h w c"``, or None if both sides agree. It is given for every input and
output and never guessed from the rank: a square map, or a batch as large as the channels, would fool a guess.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np


class Layouts(TypedDict, total=False):
    """The layouts of a pair of modules.

    Attributes:
        inputs: one per positional input.
        outputs: one per array of the output, in the order of its leaves; a mapping's by sorted keys.
        maps: by a map's path, or by the last segment of it.
        dropouts: by the path of a dropout layer, the layout of its input.
    """

    inputs: Sequence[str | None]
    outputs: Sequence[str | None]
    maps: Mapping[str, str]
    dropouts: Mapping[str, str]


def one_each(kind: str, layouts: Sequence[str | None] | None, count: int) -> list[str | None]:
    """The layouts of ``count`` arrays; all None if none are given.

    Raises:
        ValueError: there are more or fewer layouts than arrays.
    """
    if layouts is None:
        return [None] * count
    if isinstance(layouts, str):
        raise ValueError(f"layouts[{kind!r}] must be a list of layouts, got the string {layouts!r}")
    if len(layouts) != count:
        raise ValueError(f"layouts[{kind!r}] must have one entry for each of {count} arrays, got {len(layouts)}")
    wrong = [layout for layout in layouts if not (layout is None or isinstance(layout, str))]
    if wrong:
        raise ValueError(f"layouts[{kind!r}] must be layouts or None, got {wrong[0]!r}")
    return list(layouts)


def to_flax(array: np.ndarray, layout: str | None, name: str) -> np.ndarray:
    """Rearranges a PyTorch array for Flax.

    Raises:
        ValueError: the pattern does not fit the array.
    """
    if layout is None:
        return array
    from einops import EinopsError, rearrange

    try:
        return np.ascontiguousarray(rearrange(array, layout))
    except (EinopsError, ValueError) as error:
        raise ValueError(
            f"layout of {name} must read 'PyTorch -> Flax' and fit its shape {array.shape}, got {layout!r}"
        ) from error


def map_layout(path: str, layouts: Mapping[str, str]) -> str | None:
    """The layout of an attention map: by its whole path, else by its name, else None."""
    segments = [segment for segment in path.split(".") if not segment.isdigit()]
    return layouts.get(path, layouts.get(segments[-1] if segments else path))
