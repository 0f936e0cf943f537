"""Runs the Flax module of a pair."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .._tree import submodules
from ..convert import from_torch, to_torch
from ..convert.walk import entries
from ..layers import Dropout
from ..ops import attention_maps
from .layouts import Layouts, one_each, to_flax
from .results import Arrays, KeepMasks, Results, is_float, output_leaves


def run_flax(
    module: nnx.Module,
    inputs: Sequence[Any],
    *,
    kwargs: Mapping[str, Any],
    dtype: str,
    train: bool,
    layouts: Layouts,
    cotangents: Sequence[np.ndarray],
    masks: KeepMasks,
) -> Results:
    """Calls and differentiates a copy of ``module`` in ``dtype`` and one mode, compiled, at the highest precision."""
    wanted = one_each("outputs", layouts.get("outputs"), len(cotangents))
    cotangents = [to_flax(array, layout, "output") for array, layout in zip(cotangents, wanted, strict=True)]
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        floats, others = _inputs(inputs, layouts, dtype)
        graphdef, params, rest = nnx.split(_copy(module, dtype, train), nnx.Param, ...)  # type: ignore[misc]

        def call(function: Any, state: Any, floats: Mapping[int, jax.Array]) -> Any:
            # A copy: variables of an outer trace may not be written to in an inner one.
            params, rest = state
            called = nnx.merge(graphdef, params, rest, copy=True)
            _share_dropout(called, masks.replay(layouts.get("dropouts", {})))
            arguments = {**others, **floats}
            return called, function(called)(*[arguments[i] for i in range(len(inputs))], **kwargs)

        def loss(params: Any, floats: Mapping[int, jax.Array], rest: Any) -> Any:
            called, output = call(lambda module: module, (params, rest), floats)
            found = output_leaves(output)
            return _weighted_sum(found, cotangents), (dict(found), nnx.state(called))

        @jax.jit
        def run(params: Any, floats: Mapping[int, jax.Array], rest: Any) -> Any:
            gradients, (output, state) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, floats, rest)
            _, maps = call(lambda module: partial(attention_maps, module), (params, rest), floats)
            return gradients, output, state, maps

        (param_gradients, input_gradients), output, state, maps = run(params, floats, rest)
        parameters = {path for path, entry in entries(module) if entry.is_parameter}
        gradients = to_torch(nnx.merge(graphdef, param_gradients, rest))
        after = to_torch(nnx.merge(graphdef, state))
    return Results(
        output=_numpy(output),
        map=_numpy(maps),
        parameter_gradient={path: gradients[path] for path in parameters},
        input_gradient={f"input[{i}]": np.asarray(gradient) for i, gradient in input_gradients.items()},
        buffer={path: value for path, value in after.items() if train and path not in parameters and is_float(value)},
    )


def load_in_float64(module: nnx.Module, state_dict: Mapping[str, Any], rename: Mapping[str, str] | None) -> nnx.Module:
    """A copy of ``module`` with the weights of ``state_dict``, none of their digits lost."""
    with jax.enable_x64(True):
        return from_torch(_cast(module, "float64"), state_dict, rename=rename)


def _cast(module: nnx.Module, dtype: str) -> nnx.Module:
    """A copy of ``module`` with all floats in ``dtype``."""

    def cast(leaf: Any) -> Any:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    graphdef, state = nnx.split(module)
    copied: nnx.Module = nnx.merge(graphdef, jax.tree.map(cast, state), copy=True)
    return copied


def _copy(module: nnx.Module, dtype: str, train: bool) -> nnx.Module:
    copied = _cast(module, dtype)
    copied.train() if train else copied.eval()  # type: ignore[no-untyped-call]
    return copied


def _inputs(
    inputs: Sequence[Any], layouts: Layouts, dtype: str
) -> tuple[dict[int, jax.Array], dict[int, jax.Array | None]]:
    """The inputs in Flax's layouts, by position: those with a gradient, and the others (masks, None)."""
    floats: dict[int, jax.Array] = {}
    others: dict[int, jax.Array | None] = {}
    for i, (array, layout) in enumerate(
        zip(inputs, one_each("inputs", layouts.get("inputs"), len(inputs)), strict=True)
    ):
        if array is None:
            others[i] = None
            continue
        rearranged = to_flax(array, layout, f"input[{i}]")
        if is_float(array):
            floats[i] = jnp.asarray(rearranged, dtype)
        else:
            others[i] = jnp.asarray(rearranged)
    return floats, others


def _share_dropout(module: nnx.Module, keep: Callable[[str, tuple[int, ...]], np.ndarray]) -> None:
    for path, layer in submodules(module):
        if isinstance(layer, Dropout):
            layer.keep_mask = partial(lambda path, key, rate, shape: jnp.asarray(keep(path, shape)), path)


def _weighted_sum(found: Sequence[tuple[str, jax.Array]], cotangents: Sequence[np.ndarray]) -> jax.Array:
    if len(found) != len(cotangents):
        raise ValueError(f"flax_module must return as many arrays as torch_module, {len(cotangents)}, got {len(found)}")
    total = jnp.zeros(())
    for (path, leaf), cotangent in zip(found, cotangents, strict=True):
        if leaf.shape != cotangent.shape:
            raise ValueError(
                f"{path} of flax_module must have PyTorch's shape in its layout, {cotangent.shape}, got {leaf.shape}; "
                "layouts read 'PyTorch -> Flax' for outputs too"
            )
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            total = total + jnp.sum(leaf * jnp.asarray(cotangent, leaf.dtype))
    return total


def _numpy(arrays: Mapping[str, jax.Array]) -> Arrays:
    return {path: np.asarray(array) for path, array in arrays.items()}
