"""Records every call inside a module: its inputs, its outputs, and the gradient of the loss with respect to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from .._tree import submodules
from ..convert.rename import rename_all
from .flax_side import FlaxSide, in_order, numpy, weighted_loss
from .intercept import intercept
from .masks import KeepMasks
from .results import Arrays, Objective, is_inexact, leaves, output_leaves
from .torch_side import TorchSide, loss_of
from .torch_side import numpy as torch_numpy

Leaves = dict[str, Any]


@dataclass
class Call:
    """One call of a submodule.

    Attributes:
        path: of the submodule, "" for the whole.
        kind: its class.
        inputs: the input arrays, by path.
        values: the output arrays, by path.
        gradients: of the loss with respect to the outputs, where there are any.
    """

    path: str
    kind: str
    inputs: Arrays
    values: Arrays
    gradients: Arrays = field(default_factory=dict)


def trace_torch(side: TorchSide, inputs: Sequence[Any], objective: Objective, masks: KeepMasks) -> list[Call]:
    """All calls inside a PyTorch module, in the order in which they return."""
    module = side.copy(masks)
    calls: list[Call] = []
    given: list[Arrays] = []  # of the calls that have not returned yet

    def before(_layer: Any, arguments: Any, options: Any) -> None:
        given.append(_torch_arrays(_arguments(arguments, options)))

    def after(path: str, layer: Any, _arguments: Any, output: Any) -> Any:
        call = Call(path, type(layer).__name__, given.pop(), _torch_arrays(dict(output_leaves(output))))
        calls.append(call)
        return _watched(call, output)

    for path, layer in module.named_modules():
        layer.register_forward_pre_hook(before, with_kwargs=True)
        # One at a time: the path of a module may be a prefix that the table removes.
        layer.register_forward_hook(partial(after, rename_all([path], side.rename)[path]))
    loss = loss_of(
        output_leaves(side.call(module, side.tensors(inputs))),
        objective,
    )
    if loss.requires_grad:
        loss.backward()
    return calls


def trace_flax(side: FlaxSide, inputs: Sequence[Any], objective: Objective, masks: KeepMasks) -> list[Call]:
    """All calls inside a Flax module, in the order in which they return, except those inside a scan or a checkpoint."""
    calls: list[tuple[str, str]] = []

    def forward(shifts: Any, floats: Any, others: Any, cotangents: Any, curvature: Any, drawn: Any) -> Any:
        calls.clear()  # a function may be traced more than once
        given: list[Leaves] = []
        values: list[Leaves] = []
        outside = _trace_state()

        def around(path: str, kind: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if _trace_state() != outside:
                return call(*args, **kwargs)  # values of an inner trace cannot leave it
            result = call(*args, **kwargs)
            found = dict(output_leaves(result))
            if shifts is not None:
                moved = {id(found[name]): found[name] + shift for name, shift in shifts[len(values)].items()}
                result = jax.tree.map(lambda leaf: moved.get(id(leaf), leaf), result)
            calls.append((path, kind))
            given.append(_jax_arrays(_arguments(args, kwargs)))
            values.append(_jax_arrays(found))
            return result

        module = side.module(side.params, side.rest, drawn)
        for path, inner in list(submodules(module)):  # list them first: intercepting changes their classes
            if callable(inner):
                intercept(inner, partial(around, path, type(inner).__name__))
        output = output_leaves(side.call(module, in_order(floats, others)))
        return weighted_loss(output, cotangents, curvature), (given, values)

    with side.settings():
        arguments = side.arguments(inputs, objective, masks)
        _, (_, shapes) = jax.eval_shape(partial(forward, None), *arguments)
        # The gradient with respect to a shift of 0 is the gradient with respect to the value.
        shifts = [
            {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in call.items() if is_inexact(leaf)}
            for call in shapes
        ]
        differentiated = side.compiled(jax.grad(forward, has_aux=True))
        gradients, (given, values) = differentiated(shifts, *arguments)
        gradients = jax.tree.map(jnp.conj, gradients)
        return [Call(*call, *map(numpy, arrays)) for call, *arrays in zip(calls, given, values, gradients, strict=True)]


def _watched(call: Call, output: Any) -> Any:
    """The output with its tensors replaced by copies, whose gradients are added to ``call``.

    Copies, as a layer may return its input unchanged (an Identity, dropout in eval mode), and a later layer may work in
    place.
    """
    import torch
    from torch.utils._pytree import tree_map_only

    copies = {}
    for path, tensor in output_leaves(output):
        if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
            copies[id(tensor)] = tensor.clone()
            copies[id(tensor)].register_hook(partial(_keep, call, path))
    return tree_map_only(torch.Tensor, lambda tensor: copies.get(id(tensor), tensor), output)


def _keep(call: Call, path: str, gradient: Any) -> None:
    call.gradients[path] = torch_numpy(gradient)


def _arguments(arguments: Sequence[Any], options: dict[str, Any]) -> Leaves:
    return dict([*leaves(arguments, "input"), *leaves(options, "input")])


def _torch_arrays(found: Leaves) -> Arrays:
    # Copied now, as a later layer may work in place.
    return {path: torch_numpy(leaf) for path, leaf in found.items() if hasattr(leaf, "detach")}


def _jax_arrays(found: Leaves) -> Leaves:
    """The arrays, without random keys and settings."""
    return {path: leaf for path, leaf in found.items() if is_inexact(leaf) or _is_whole(leaf)}


def _is_whole(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and (bool(jnp.issubdtype(leaf.dtype, jnp.integer)) or leaf.dtype == np.bool_)


def _trace_state() -> Any:
    return get_opaque_trace_state(convention="nnx")
