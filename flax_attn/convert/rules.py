"""How a layer's variables are called and laid out in a PyTorch state_dict: one rule per layer type.

A rule lists what a layer contributes. It holds for subclasses, so `flax_attn.layers.Linear` needs none of its own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from ..layers import BatchNorm

Transform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Entry:
    """One entry of a state_dict.

    Attributes:
        name: the last segment of its path, "weight" say.
        variable: the Flax variable that holds it, or None for an entry that Flax does not have.
        to_torch: takes Flax's layout to PyTorch's.
        from_torch: takes PyTorch's layout to Flax's, the inverse.
        constant: what is written where ``variable`` is None; such an entry is ignored on loading.
    """

    name: str
    variable: nnx.Variable[Any] | None
    to_torch: Transform = np.asarray
    from_torch: Transform = np.asarray
    constant: np.ndarray | None = None


Rule = Callable[[Any], Iterator[Entry]]
RULES: dict[type[nnx.Module], Rule] = {}


def rule(layer_type: type[nnx.Module]) -> Callable[[Rule], Rule]:
    """Registers the decorated function as the rule of ``layer_type``."""

    def register(function: Rule) -> Rule:
        RULES[layer_type] = function
        return function

    return register


def find_rule(module: nnx.Module) -> Rule | None:
    """The rule of the module's type or of its nearest base that has one."""
    return next((RULES[base] for base in type(module).__mro__ if base in RULES), None)


def _optional(name: str, variable: nnx.Variable[Any] | None) -> Iterator[Entry]:
    if variable is not None:
        yield Entry(name, variable)


@rule(nnx.Linear)
def _linear(layer: nnx.Linear) -> Iterator[Entry]:
    yield Entry("weight", layer.kernel, np.transpose, np.transpose)
    yield from _optional("bias", layer.bias)


@rule(nnx.Conv)
def _conv(layer: nnx.Conv) -> Iterator[Entry]:
    """Flax (*kernel_size, in / groups, out), PyTorch (out, in / groups, *kernel_size)."""
    rank = len(layer.kernel_size)
    to_torch = (rank + 1, rank, *range(rank))
    from_torch = (*range(2, rank + 2), 1, 0)
    yield Entry(
        "weight",
        layer.kernel,
        lambda kernel: np.transpose(kernel, to_torch),
        lambda weight: np.transpose(weight, from_torch),
    )
    yield from _optional("bias", layer.bias)


@rule(nnx.LayerNorm)
def _layer_norm(layer: nnx.LayerNorm) -> Iterator[Entry]:
    yield from _optional("weight", layer.scale)
    yield from _optional("bias", layer.bias)


@rule(nnx.Embed)
def _embedding(layer: nnx.Embed) -> Iterator[Entry]:
    yield Entry("weight", layer.embedding)


@rule(BatchNorm)
@rule(nnx.BatchNorm)
def _batch_norm(layer: BatchNorm | nnx.BatchNorm) -> Iterator[Entry]:
    yield from _optional("weight", layer.scale)
    yield from _optional("bias", layer.bias)
    yield Entry("running_mean", layer.mean)
    yield Entry("running_var", layer.var)
    # PyTorch counts batches for a cumulative average that is off by default; Flax has no such count.
    yield Entry("num_batches_tracked", None, constant=np.zeros((), np.int64))
