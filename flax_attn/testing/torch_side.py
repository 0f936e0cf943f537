"""Runs the PyTorch module of a pair."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..convert.rename import rename_all
from .layouts import Layouts, map_layout, one_each, to_flax
from .results import Arrays, KeepMasks, Results, is_float, output_leaves

TorchMaps = Callable[..., Mapping[str, Any]]


def torch_output_shapes(module: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """The shapes of the output's arrays, in eval mode."""
    import torch

    with torch.no_grad():
        output = _copy(module, "float32", train=False, rename=None, masks=KeepMasks(0))(
            *_tensors(inputs, "float32"), **kwargs
        )
    return [tuple(leaf.shape) for _, leaf in output_leaves(output)]


def run_torch(
    module: Any,
    inputs: Sequence[Any],
    *,
    kwargs: Mapping[str, Any],
    dtype: str,
    train: bool,
    layouts: Layouts,
    cotangents: Sequence[np.ndarray],
    maps: TorchMaps | None,
    rename: Mapping[str, str] | None,
    masks: KeepMasks,
) -> Results:
    """Calls and differentiates a copy of ``module`` in ``dtype`` and one mode; paths are renamed to Flax's."""
    import torch

    module = _copy(module, dtype, train, rename, masks)
    results = Results()
    if maps is not None:
        seen = maps(_copy(module, dtype, train, rename, KeepMasks(masks.seed)), *_tensors(inputs, dtype), **kwargs)
        wanted = layouts.get("maps", {})
        results.map = {path: to_flax(_numpy(value), map_layout(path, wanted), path) for path, value in seen.items()}
    tensors = _tensors(inputs, dtype)
    for tensor in tensors:
        if tensor is not None and tensor.is_floating_point():
            tensor.requires_grad_()
    found = output_leaves(module(*tensors, **kwargs))
    loss = torch.zeros((), dtype=getattr(torch, dtype))
    for (_, leaf), cotangent in zip(found, cotangents, strict=True):
        if leaf.is_floating_point():
            loss = loss + (leaf * torch.tensor(cotangent, dtype=leaf.dtype)).sum()
    if loss.requires_grad:
        loss.backward()
    for (path, leaf), layout in zip(found, one_each("outputs", layouts.get("outputs"), len(found)), strict=True):
        results.output[path] = to_flax(_numpy(leaf), layout, path)
    for name, parameter in module.named_parameters():
        results.parameter_gradient[name] = _gradient(parameter)
    for index, (tensor, layout) in enumerate(
        zip(tensors, one_each("inputs", layouts.get("inputs"), len(tensors)), strict=True)
    ):
        if tensor is not None and tensor.requires_grad:
            results.input_gradient[f"input[{index}]"] = to_flax(_gradient(tensor), layout, f"input[{index}]")
    results.map = _renamed(results.map, rename)
    results.parameter_gradient = _renamed(results.parameter_gradient, rename)
    if train:
        results.buffer = {
            name: _numpy(buffer)
            for name, buffer in module.named_buffers()
            if buffer is not None and buffer.is_floating_point()
        }
        results.buffer = _renamed(results.buffer, rename)
    return results


def _renamed(arrays: Arrays, rename: Mapping[str, str] | None) -> Arrays:
    names = rename_all(arrays, rename)
    return {names[path]: array for path, array in arrays.items()}


def _copy(module: Any, dtype: str, train: bool, rename: Mapping[str, str] | None, masks: KeepMasks) -> Any:
    """A copy in dtype and mode whose dropouts drop what the Flax side's drop."""
    import torch

    module = copy.deepcopy(module).to(getattr(torch, dtype)).train(train)
    module.requires_grad_(True).zero_grad(set_to_none=True)  # frozen parameters are compared as any other

    def dropout(path: str, layer: Any) -> Callable[[Any], Any]:
        def forward(x: Any) -> Any:
            if not layer.training or layer.p == 0:
                return x
            mask = torch.from_numpy(masks.draw(path, layer.p, tuple(x.shape)))
            return torch.where(mask, x / (1 - layer.p), torch.zeros((), dtype=x.dtype))

        return forward

    for path, layer in module.named_modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.forward = dropout(rename_all([path], rename)[path], layer)
    return module


def _tensors(inputs: Sequence[Any], dtype: str) -> list[Any]:
    import torch

    def tensor(array: np.ndarray | None) -> Any:
        if array is None:
            return None
        return torch.tensor(array, dtype=getattr(torch, dtype) if is_float(array) else None)

    return [tensor(array) for array in inputs]


def _numpy(tensor: Any) -> np.ndarray:
    array: np.ndarray = tensor.detach().numpy()
    return array


def _gradient(tensor: Any) -> np.ndarray:
    return np.zeros(tuple(tensor.shape)) if tensor.grad is None else _numpy(tensor.grad)
