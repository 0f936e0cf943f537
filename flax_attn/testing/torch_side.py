"""The PyTorch module of a pair, called, differentiated or trained, with paths renamed to Flax's."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..convert.rename import rename_all
from .layouts import Layouts, map_layout, one_each, to_flax
from .masks import DrawsMasks, KeepMasks
from .results import Arrays, Objective, Results, is_float, output_leaves

TorchMaps = Callable[..., Mapping[str, Any]]


class TorchSide:
    """A copy of a module in one dtype and mode.

    Args:
        module: the module, left as it is.
        kwargs: keyword arguments of its call.
        dtype: of the computation.
        rounded_to: the dtype whose numbers weights are rounded to first, so that a wider computation is the truth about
            a narrower one.
        train: whether it is in training mode.
        layouts: how inputs, outputs, maps and dropouts lie in Flax.
        maps: gives the attention maps.
        rename: takes its names to Flax's.
    """

    def __init__(
        self,
        module: Any,
        *,
        kwargs: Mapping[str, Any],
        dtype: str,
        rounded_to: str,
        train: bool,
        layouts: Layouts,
        maps: TorchMaps | None,
        rename: Mapping[str, str] | None,
    ) -> None:
        import torch

        self.kwargs, self.train, self.layouts, self.maps, self.rename = kwargs, train, layouts, maps, rename
        self.dtype = getattr(torch, dtype)
        rounded = _deepcopy(module).to(getattr(torch, rounded_to)).to(self.dtype).train(train)
        self.module = rounded.requires_grad_(True)  # frozen parameters are compared as any other
        self.module.zero_grad(set_to_none=True)

    def output_shapes(self, inputs: Sequence[Any]) -> list[tuple[int, ...]]:
        """The shapes of the output's arrays.

        Raises:
            ValueError: the module does not take these inputs.
        """
        import torch

        module = self.copy(KeepMasks(0))
        try:
            with torch.no_grad(), torch.random.fork_rng():
                output = module(*_copies(self.tensors(inputs)), **self.kwargs)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
            shapes = ", ".join(f"input[{i}] {None if x is None else x.shape}" for i, x in enumerate(inputs))
            raise ValueError(f"torch_module must take the inputs, got {shapes}: {error}") from error
        found = output_leaves(output)
        for path, leaf in found:
            if not isinstance(leaf, torch.Tensor):
                raise ValueError(
                    f"torch_module must return tensors, nested or not, got {type(leaf).__name__} at {path}"
                )
            if leaf.is_complex():
                raise ValueError(f"torch_module must return real numbers, got {leaf.dtype} at {path}")
        return [tuple(leaf.shape) for _, leaf in found]

    def check_random_numbers(self, inputs: Sequence[Any]) -> None:
        """Raises ``ValueError`` where the module draws random numbers that cannot be shared."""
        import torch

        found = []
        for seed in range(2):
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(seed)
                output = self.copy(KeepMasks(0))(*_copies(self.tensors(inputs)), **self.kwargs)
            found.append([numpy(leaf) for _, leaf in output_leaves(output)])
        if not all(np.array_equal(one, other, equal_nan=True) for one, other in zip(*found, strict=True)):
            raise ValueError(
                "torch_module must draw its random numbers in torch.nn.Dropout layers, where they can be shared, got "
                "other results from other seeds: is there a torch.nn.functional.dropout?"
            )

    def run(self, inputs: Sequence[Any], objective: Objective, masks: KeepMasks) -> Results:
        """Calls and differentiates the module."""
        module = self.copy(masks)
        results = Results()
        if self.maps is not None:
            seen = self.maps(self.copy(KeepMasks(*masks.seed)), *self.tensors(inputs), **self.kwargs)
            wanted = self.layouts.get("maps", {})
            results.map = {path: to_flax(numpy(value), map_layout(path, wanted), path) for path, value in seen.items()}
        tensors = self.tensors(inputs)
        for tensor in tensors:
            if tensor is not None and tensor.is_floating_point():
                tensor.requires_grad_()
        found = output_leaves(module(*_copies(tensors), **self.kwargs))
        loss = loss_of(found, objective)
        if loss.requires_grad:
            loss.backward()
        outputs = one_each("outputs", self.layouts.get("outputs"), len(found))
        results.output = {
            path: to_flax(numpy(leaf), layout, path) for (path, leaf), layout in zip(found, outputs, strict=True)
        }
        results.parameter_gradient = {name: _gradient(parameter) for name, parameter in named_parameters(module)}
        results.input_gradient = self._input_gradients(tensors)
        results.buffer = _buffers(module)  # in eval mode they must not change
        return self._renamed(results)

    def fit(
        self,
        optimizer: Callable[[Any], Any],
        batches: Sequence[Sequence[Any]],
        objective: Objective,
        masks: Sequence[KeepMasks],
    ) -> Results:
        """Trains a copy, one step per entry of ``masks``, cycling through the batches.

        Args:
            optimizer: takes the parameters and returns a ``torch.optim.Optimizer``.
            batches: inputs of all steps, repeated as often as needed.
            objective: the same for all.
            masks: filled, those of every step.
        """
        import torch

        module = copy.deepcopy(self.module)
        parameters = list(module.parameters())
        stepper = optimizer(parameters) if parameters else None
        tensors = [self.tensors(batch) for batch in batches]
        losses = []
        for step, keep in enumerate(masks):
            share_dropout(module, keep, self.rename)
            module.zero_grad()
            inputs = _copies(tensors[step % len(tensors)])
            loss = loss_of(output_leaves(module(*inputs, **self.kwargs)), objective)
            if loss.requires_grad:
                loss.backward()
            for parameter in parameters:
                # Unused parameters get a gradient of 0, as in JAX; PyTorch would skip them, weight decay included.
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if stepper is not None:
                stepper.step()
            losses.append(loss.item())
        return self._renamed(
            Results(
                loss={"loss": np.array(losses)},
                trained_parameter={name: numpy(parameter) for name, parameter in named_parameters(module)},
                trained_buffer=_buffers(module),
            )
        )

    def copy(self, masks: KeepMasks) -> Any:
        """A copy whose dropouts use ``masks``."""
        module = copy.deepcopy(self.module)
        share_dropout(module, masks, self.rename)
        return module

    def tensors(self, inputs: Sequence[Any]) -> list[Any]:
        """The inputs as tensors."""
        import torch

        return [
            None if array is None else torch.tensor(array, dtype=self.dtype if is_float(array) else None)
            for array in inputs
        ]

    def _input_gradients(self, tensors: Sequence[Any]) -> Arrays:
        layouts = one_each("inputs", self.layouts.get("inputs"), len(tensors))
        return {
            f"input[{i}]": to_flax(_gradient(tensor), layout, f"input[{i}]")
            for i, (tensor, layout) in enumerate(zip(tensors, layouts, strict=True))
            if tensor is not None and tensor.requires_grad
        }

    def _renamed(self, results: Results) -> Results:
        for quantity in ("map", "parameter_gradient", "buffer", "trained_parameter", "trained_buffer"):
            arrays = getattr(results, quantity)
            names = rename_all(arrays, self.rename)
            setattr(results, quantity, {names[path]: array for path, array in arrays.items()})
        return results


def _deepcopy(module: Any) -> Any:
    try:
        return copy.deepcopy(module)
    except RuntimeError as error:
        raise ValueError(
            f"torch_module must be free of tensors from an earlier call, such as a kept attention map, to be copied, "
            f"got {type(module).__name__}: {error}"
        ) from error


def share_dropout(module: Any, masks: DrawsMasks, rename: Mapping[str, str] | None) -> None:
    """Makes every dropout inside ``module`` draw from ``masks``.

    Raises:
        ValueError: a layer whose dropout cannot be shared.
    """
    import torch

    # The number of axes that share one mask element: none for elements, the spatial ones for channels.
    shared_axes = {torch.nn.Dropout: 0, torch.nn.Dropout1d: 1, torch.nn.Dropout2d: 2, torch.nn.Dropout3d: 3}
    drops = (torch.nn.modules.dropout._DropoutNd, torch.nn.MultiheadAttention, torch.nn.RNNBase)
    for path, layer in module.named_modules():
        own = next((axes for kind, axes in shared_axes.items() if type(layer).forward is kind.forward), None)
        if own is not None:
            layer.forward = _dropout(layer, rename_all([path], rename)[path], masks, own)
        elif isinstance(layer, drops) and layer.training and getattr(layer, "p", getattr(layer, "dropout", 0)) > 0:
            raise ValueError(
                f"torch_module must drop in torch.nn.Dropout layers alone, the masks of others cannot be shared, got "
                f"{type(layer).__name__} {path!r}"
            )


def _dropout(layer: Any, path: str, masks: DrawsMasks, shared_axes: int) -> Callable[[Any], Any]:
    import torch

    def forward(x: Any) -> Any:
        if not layer.training or layer.p == 0:
            return x
        shape = (*x.shape[: x.dim() - shared_axes], *(1,) * shared_axes)
        mask = torch.from_numpy(masks.draw(path, layer.p, shape))
        # At a rate of 1 nothing is kept, and 0 / 0 would reach the gradient of dropped elements.
        return torch.where(mask, x / (1 - layer.p or 1), torch.zeros((), dtype=x.dtype))

    return forward


def named_parameters(module: Any) -> list[tuple[str, Any]]:
    """All parameters; one with several names is listed under each."""
    return list(module.named_parameters(remove_duplicate=False))


def loss_of(found: Sequence[tuple[str, Any]], objective: Objective) -> Any:
    import torch

    total = torch.zeros((), dtype=torch.float32)
    for (_, leaf), cotangent in zip(found, objective.cotangents, strict=True):
        if leaf.is_floating_point():
            wide = leaf.to(torch.promote_types(leaf.dtype, torch.float32))
            weighted = wide * torch.tensor(cotangent, dtype=wide.dtype) + objective.curvature / 2 * wide.square()
            total = total + weighted.sum()
    return total


def _buffers(module: Any) -> Arrays:
    """The buffers in the state_dict; others are constants of a module."""
    saved = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    return {name: numpy(buffer) for name, buffer in module.named_buffers(remove_duplicate=False) if name in saved}


def _copies(tensors: Sequence[Any]) -> list[Any]:
    """Copies the inputs, as a module may work on them in place."""
    return [None if tensor is None else tensor.clone() for tensor in tensors]


def numpy(tensor: Any) -> np.ndarray:
    """A copy as a NumPy array, floats in float64, which holds every compared dtype."""
    tensor = tensor.detach().cpu()
    array: np.ndarray = (tensor.double() if tensor.is_floating_point() else tensor).numpy().copy()
    return array


def _gradient(tensor: Any) -> np.ndarray:
    return np.zeros(tuple(tensor.shape)) if tensor.grad is None else numpy(tensor.grad)
