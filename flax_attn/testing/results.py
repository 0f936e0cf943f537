"""What one framework computed, in names and layouts that the other one shares."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .layouts import to_flax

Arrays = dict[str, np.ndarray]


@dataclass
class Results:
    """Arrays by path, per quantity: parameters and buffers in PyTorch's layout, everything else in Flax's."""

    output: Arrays = field(default_factory=dict)
    map: Arrays = field(default_factory=dict)
    parameter_gradient: Arrays = field(default_factory=dict)
    input_gradient: Arrays = field(default_factory=dict)
    buffer: Arrays = field(default_factory=dict)

    def of(self, quantity: str) -> Arrays:
        """The arrays of a quantity by its name in the tolerance table."""
        arrays: Arrays = getattr(self, quantity.replace(" ", "_"))
        return arrays


def leaves(output: Any, path: str = "output") -> list[tuple[str, Any]]:
    """The arrays in nested tuples, lists and mappings, with their paths; None is left out.

    Example:
        >>> [path for path, _ in leaves((1, {"map": 2}, None))]
        ['output[0]', 'output[1].map']
    """
    if output is None:
        return []
    if isinstance(output, Mapping):
        return [leaf for key, value in output.items() for leaf in leaves(value, f"{path}.{key}")]
    if isinstance(output, Sequence):
        return [leaf for index, value in enumerate(output) for leaf in leaves(value, f"{path}[{index}]")]
    return [(path, output)]


def output_leaves(output: Any) -> list[tuple[str, Any]]:
    """`leaves`, where an output of one array is called "output", also when it stands in a tuple beside None."""
    found = leaves(output)
    return [("output", found[0][1])] if len(found) == 1 else found


def is_float(array: np.ndarray | None) -> bool:
    """Whether an input takes part in differentiation and changes its dtype."""
    return array is not None and np.issubdtype(array.dtype, np.floating)


def random_cotangents(shapes: Sequence[tuple[int, ...]], seed: int) -> list[np.ndarray]:
    """One fixed random array per output: a plain sum through a softmax has gradient zero and tests nothing."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


class KeepMasks:
    """The keep-masks of every dropout: drawn when PyTorch calls it, and handed to Flax at the same call.

    Attributes:
        drawn: by path of the dropout, the mask of every call in PyTorch's layout.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.drawn: dict[str, list[np.ndarray]] = {}

    def draw(self, path: str, rate: float, shape: tuple[int, ...]) -> np.ndarray:
        """Draws and keeps the mask of the next call of a PyTorch dropout."""
        masks = self.drawn.setdefault(path, [])
        rng = np.random.default_rng([self.seed, zlib.crc32(path.encode()), len(masks)])
        masks.append(rng.random(shape) >= rate)
        return masks[-1]

    def replay(self, layouts: Mapping[str, str]) -> Callable[[str, tuple[int, ...]], np.ndarray]:
        """Returns a function from (path, shape of the Flax dropout) to the mask that PyTorch had at this call.

        That function raises ``ValueError`` where PyTorch made no such call, or had another shape.
        """
        calls: dict[str, int] = {}

        def keep(path: str, shape: tuple[int, ...]) -> np.ndarray:
            call = calls[path] = calls.get(path, -1) + 1
            masks = self.drawn.get(path, [])
            if call >= len(masks):
                raise ValueError(
                    f"dropout {path!r} of flax_module must drop as often as torch_module's, {len(masks)} times, got "
                    f"{call + 1}"
                )
            mask = to_flax(masks[call], layouts.get(path), f"dropout {path!r}")
            if mask.shape != shape:
                raise ValueError(
                    f"dropout {path!r} must have PyTorch's shape {mask.shape}, or a layout in layouts['dropouts'] that "
                    f"takes it there, got {shape}"
                )
            return mask

        return keep
