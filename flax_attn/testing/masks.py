"""The keep-masks of every dropout, shared by both frameworks."""

import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import numpy as np

from .layouts import to_flax

Masks = dict[str, list[np.ndarray]]


class DropoutError(ValueError):
    """The two sides' dropouts cannot be matched."""


class DrawsMasks(Protocol):
    """The source of the masks of PyTorch's dropouts."""

    def draw(self, path: str, rate: float, shape: tuple[int, ...]) -> np.ndarray:
        """The mask of the next call of a dropout, True for elements that are kept."""


class KeepMasks:
    """Draws a mask for each call on PyTorch's side and stores it for Flax's.

    Attributes:
        drawn: the masks of all calls in PyTorch's layout, by path of the dropout.
    """

    def __init__(self, *seed: int) -> None:
        self.seed = seed
        self.drawn: Masks = {}

    def draw(self, path: str, rate: float, shape: tuple[int, ...]) -> np.ndarray:
        """Draws and stores the mask of the next call of a PyTorch dropout."""
        masks = self.drawn.setdefault(path, [])
        rng = np.random.default_rng([*self.seed, zlib.crc32(path.encode()), len(masks)])
        masks.append(rng.random(shape) >= rate)
        return masks[-1]

    def for_flax(self, layouts: Mapping[str, str]) -> Masks:
        """All drawn masks, in Flax's layout."""
        return {
            path: [to_flax(mask, layouts.get(path), f"dropout {path!r}") for mask in masks]
            for path, masks in self.drawn.items()
        }


def replay(
    masks: Mapping[str, list[np.ndarray]] | Mapping[str, list[jax.Array]],
) -> Callable[[str, tuple[int, ...]], jax.Array | np.ndarray]:
    """Returns a function from (path, shape of the Flax dropout) to the mask of the same call in PyTorch.

    That function raises ``ValueError`` if PyTorch made no such call, or one of another shape.
    """
    calls: dict[str, int] = {}

    def keep(path: str, shape: tuple[int, ...]) -> jax.Array | np.ndarray:
        call = calls[path] = calls.get(path, -1) + 1
        known = masks.get(path, [])
        if call >= len(known):
            raise DropoutError(
                f"dropout {path!r} of flax_module must drop as often as torch_module's, {len(known)} times, got "
                f"{call + 1}"
            )
        if known[call].shape != shape:
            raise DropoutError(
                f"dropout {path!r} must have PyTorch's shape {known[call].shape}, or a layout in layouts['dropouts'] "
                f"that takes it there, got {shape}"
            )
        return known[call]

    return keep
