"""What one framework computed, in names and layouts that the other one shares."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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


def is_float(array: np.ndarray | None) -> bool:
    """Whether an input takes part in differentiation and changes its dtype."""
    return array is not None and np.issubdtype(array.dtype, np.floating)


def random_cotangents(shapes: Sequence[tuple[int, ...]], seed: int) -> list[np.ndarray]:
    """One fixed random array per output: a plain sum through a softmax has gradient zero and tests nothing."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def keep_masks(seed: int) -> Callable[[str, float, tuple[int, ...]], np.ndarray]:
    """Returns a function from (path of a dropout, rate, shape) to its keep-mask, new at every call of one path.

    Two functions of one seed give the same masks in the same order: one for either framework.
    """
    calls: dict[str, int] = {}

    def keep(path: str, rate: float, shape: tuple[int, ...]) -> np.ndarray:
        call = calls[path] = calls.get(path, -1) + 1
        rng = np.random.default_rng([seed, zlib.crc32(path.encode()), call])
        return rng.random(shape) >= rate

    return keep
