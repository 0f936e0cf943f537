"""The arguments of a call: arrays in nested containers, taken out for a comparison and put back for each side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

PLAIN = (type(None), bool, int, float, complex, str)  # arguments that are passed as they are


@dataclass(frozen=True)
class _Slot:
    place: int


@dataclass(frozen=True)
class Signature:
    """The positional arguments of a call without their arrays.

    Attributes:
        names: of the arrays, ``input[0]``, ``input[1].mask`` or ``input[2][0]``.
        arguments: with a slot in place of each array.
    """

    names: tuple[str, ...]
    arguments: tuple[Any, ...]

    def arrange(self, arrays: Sequence[Any]) -> list[Any]:
        """The arguments with these arrays, one for each name."""
        return [
            map_leaves(lambda leaf, _: arrays[leaf.place] if isinstance(leaf, _Slot) else leaf, value, "")
            for value in self.arguments
        ]


def take_apart(inputs: Sequence[Any]) -> tuple[Signature, list[np.ndarray | None]]:
    """The signature and the arrays of positional arguments; None in place of an argument counts as an array.

    Raises:
        ValueError: something that is neither an array nor a number, text or container of them.

    Example:
        >>> signature, arrays = take_apart([[np.ones(2), np.zeros(3)], {"mask": np.ones(4)}, 5])
        >>> signature.names, [array.shape for array in arrays]
        (('input[0][0]', 'input[0][1]', 'input[1].mask'), [(2,), (3,), (4,)])
    """
    names: list[str] = []
    arrays: list[np.ndarray | None] = []

    def take(leaf: Any, name: str) -> Any:
        try:
            array = to_array(leaf)
        except Exception as error:  # a sparse, quantised or meta tensor, each with an error of its own
            raise ValueError(f"{name} must be an array with values, got {type(leaf).__name__}: {error}") from error
        if array is None and not isinstance(leaf, PLAIN):
            raise ValueError(f"{name} must be an array, a number or a container of them, got {type(leaf).__name__}")
        if array is None and not (leaf is None and name.count("[") == 1 and "." not in name):
            return leaf
        names.append(name)
        arrays.append(array)
        return _Slot(len(arrays) - 1)

    arguments = tuple(map_leaves(take, value, f"input[{i}]") for i, value in enumerate(inputs))
    return Signature(tuple(names), arguments), arrays


def map_leaves(function: Callable[[Any, str], Any], value: Any, name: str) -> Any:
    """Calls a function on everything in nested tuples, lists and mappings, with its path."""
    if isinstance(value, Mapping):
        return {key: map_leaves(function, item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [map_leaves(function, item, f"{name}[{i}]") for i, item in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return function(value, name)


def to_array(value: Any) -> np.ndarray | None:
    """A NumPy array of an array or tensor of any framework; None for anything else."""
    if hasattr(value, "detach"):  # a tensor, recognised without importing torch
        tensor = value.detach().cpu().resolve_conj().resolve_neg()
        array: np.ndarray = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
        return array
    if not (hasattr(value, "dtype") and hasattr(value, "shape")):
        return None
    array = np.asarray(value)
    narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.kind != "f"  # bfloat16, which PyTorch lacks here
    return array.astype(np.float32) if narrow else array
