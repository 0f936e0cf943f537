"""Every call inside a module with what it returned and the gradient of the loss with respect to that."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._tree import submodules
from ..convert.rename import rename_all
from .flax_side import FlaxSide, in_order, numpy, weighted_loss
from .intercept import intercept
from .masks import KeepMasks
from .results import Objective, leaves, output_leaves
from .torch_side import TorchSide, loss_of
from .torch_side import numpy as torch_numpy


@dataclass
class Call:
    """One call of a submodule.

    Attributes:
        path: of the submodule, "" for the whole.
        kind: its class.
        values: the arrays that it returned.
        gradients: of the loss with respect to them, None where nothing flows.
    """

    path: str
    kind: str
    values: list[np.ndarray]
    gradients: list[np.ndarray | None] = field(default_factory=list)


def trace_torch(side: TorchSide, inputs: Sequence[Any], objective: Objective, masks: KeepMasks) -> list[Call]:
    """All calls inside a PyTorch module, in the order in which they end."""
    module = side.copy(masks)
    names = rename_all([path for path, _ in module.named_modules() if path], side.rename)
    calls: list[tuple[Call, list[Any]]] = []

    def hook(path: str, layer: Any, _arguments: Any, output: Any) -> None:
        tensors = [tensor for _, tensor in leaves(output) if hasattr(tensor, "detach")]
        for tensor in tensors:
            if tensor.requires_grad:
                tensor.retain_grad()
        # The values now: a later layer may work in place.
        calls.append((Call(path, type(layer).__name__, [torch_numpy(tensor) for tensor in tensors]), tensors))

    for path, layer in module.named_modules():
        layer.register_forward_hook(partial(hook, names.get(path, "")))
    loss = loss_of(output_leaves(module(*side.tensors(inputs), **side.kwargs)), objective)
    if loss.requires_grad:
        loss.backward()
    for call, tensors in calls:
        call.gradients = [None if t.grad is None else torch_numpy(t.grad) if t.requires_grad else None for t in tensors]
    return [call for call, _ in calls]


def trace_flax(side: FlaxSide, inputs: Sequence[Any], objective: Objective, masks: KeepMasks) -> list[Call]:
    """All calls inside a Flax module, in the order in which they end."""
    kinds: list[tuple[str, str]] = []

    def forward(shifts: Any, floats: Any, others: Any, cotangents: Any, curvature: Any, drawn: Any) -> Any:
        kinds.clear()  # a function may be traced more than once
        values: list[list[jax.Array]] = []

        def around(path: str, kind: str, call: Any, *args: Any, **kwargs: Any) -> Any:
            found, tree = jax.tree.flatten(call(*args, **kwargs))
            if shifts is not None:
                found = [value + shift for value, shift in zip(found, shifts[len(values)], strict=True)]
            kinds.append((path, kind))
            values.append(found)
            return jax.tree.unflatten(tree, found)

        module = side.module(side.params, side.rest, drawn)
        for path, inner in submodules(module):
            if callable(inner):
                intercept(inner, partial(around, path, type(inner).__name__))
        output = output_leaves(module(*in_order(floats, others), **side.kwargs))
        return weighted_loss(output, cotangents, curvature), values

    with side.settings():
        arguments = side.arguments(inputs, objective, masks)
        _, shapes = jax.eval_shape(partial(forward, None), *arguments)
        # The gradient with respect to a shift of 0 is the gradient with respect to the value.
        shifts = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        differentiated = jax.grad(forward, has_aux=True, allow_int=True)
        gradients, values = side.compiled(differentiated)(shifts, *arguments)
        return [
            Call(path, kind, _arrays(value), list(_arrays(gradient)))
            for (path, kind), value, gradient in zip(kinds, values, gradients, strict=True)
        ]


def _arrays(values: Sequence[Any]) -> list[Any]:
    return list(numpy({str(i): value for i, value in enumerate(values)}).values())
