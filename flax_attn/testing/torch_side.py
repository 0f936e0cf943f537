"""The PyTorch module of a pair, called, differentiated or trained, with paths renamed to Flax's."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..convert.rename import rename_all
from .ambient import default_dtype
from .errors import rounded
from .inputs import Signature, map_leaves, to_array
from .layouts import Layouts, map_layout, one_each, to_flax
from .masks import DrawsMasks, KeepMasks
from .results import Arrays, Objective, Results, is_inexact, of_kind, output_leaves, real_form

TorchMaps = Callable[..., Mapping[str, Any]]


class TorchSide:
    """A copy of a module in one dtype and mode.

    Args:
        module: the module, left as it is.
        signature: of its call.
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
        signature: Signature,
        kwargs: Mapping[str, Any],
        dtype: str,
        rounded_to: str,
        train: bool,
        layouts: Layouts,
        maps: TorchMaps | None,
        rename: Mapping[str, str] | None,
    ) -> None:
        self.train, self.layouts, self.maps, self.rename = train, layouts, maps, rename
        self.signature, self.dtype = signature, dtype
        self.kwargs = map_leaves(lambda leaf, _: self._keyword(leaf, rounded_to), dict(kwargs), "")
        self.module = _cast(_cast(_deepcopy(module), rounded_to), dtype).train(train)
        for parameter in self.module.parameters():  # frozen ones are compared as any other
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
        self.module.zero_grad(set_to_none=True)

    def call(self, module: Any, tensors: Sequence[Any]) -> Any:
        """Calls a copy of the module on copies, as it may work on its inputs in place."""
        import torch

        copies = [None if tensor is None else tensor.clone() for tensor in tensors]
        with default_dtype(getattr(torch, self.dtype)):  # of the tensors that it makes itself
            return module(*self.signature.arrange(copies), **self.kwargs)

    def output_shapes(self, inputs: Sequence[Any]) -> dict[str, tuple[int, ...]]:
        """The shapes of the output's arrays, by path.

        Raises:
            ValueError: the module does not take these inputs.
        """
        import torch

        module = self.copy(KeepMasks(0))
        with self._errors_named(module, inputs), torch.no_grad():
            output = self.call(module, self.tensors(inputs))
        found = output_leaves(output)
        for path, leaf in found:
            if not isinstance(leaf, torch.Tensor):
                raise ValueError(
                    f"torch_module must return tensors, nested or not, got {type(leaf).__name__} at {path}"
                )
        return {path: tuple(leaf.shape) for path, leaf in found}

    @contextmanager
    def _errors_named(self, module: Any, inputs: Sequence[Any]) -> Iterator[None]:
        """Errors of a call of ``module`` name the dtype, the inputs and the submodule."""
        inside = _watch_calls(module)
        try:
            yield
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
            given = zip(self.signature.names, inputs, strict=True)
            shapes = ", ".join(f"{name} {None if x is None else x.shape}" for name, x in given)
            where = f" in {inside[-1]!r}" if inside else ""
            raise ValueError(
                f"torch_module must take the inputs in {self.dtype}, got {shapes}:{where} {error}{_of_dtypes(error)}"
            ) from error

    def check_random_numbers(self, inputs: Sequence[Any]) -> None:
        """Raises ``ValueError`` where the module draws random numbers that cannot be shared."""
        import torch

        found = []
        for seed in range(2):
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(seed)
                output = self.call(self.copy(KeepMasks(0)), self.tensors(inputs))
            found.append([numpy(leaf) for _, leaf in output_leaves(output)])
        if not all(np.array_equal(one, other, equal_nan=True) for one, other in zip(*found, strict=True)):
            raise ValueError(
                "torch_module must draw its random numbers in torch.nn.Dropout layers, where they can be shared, got "
                "other results from other seeds: is there a torch.nn.functional.dropout?"
            )

    def run(self, inputs: Sequence[Any], objective: Objective, masks: KeepMasks) -> Results:
        """Calls and differentiates the module."""
        import torch

        module = self.copy(masks)
        results = Results()
        if self.maps is not None:
            arguments = self.signature.arrange(self.tensors(inputs))
            with default_dtype(getattr(torch, self.dtype)):
                seen = self.maps(self.copy(KeepMasks(*masks.seed)), *arguments, **self.kwargs)
            wanted = self.layouts.get("maps", {})
            results.map = {path: to_flax(numpy(value), map_layout(path, wanted), path) for path, value in seen.items()}
        tensors = self.tensors(inputs)
        for tensor in tensors:
            if tensor is not None and (tensor.is_floating_point() or tensor.is_complex()):
                tensor.requires_grad_()
        with self._errors_named(module, inputs):
            found = output_leaves(self.call(module, tensors))
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
            loss = loss_of(output_leaves(self.call(module, tensors[step % len(tensors)])), objective)
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
        """The input arrays as tensors."""
        return [None if array is None else self._tensor(array) for array in inputs]

    def _tensor(self, array: np.ndarray) -> Any:
        import torch

        return torch.tensor(array, dtype=getattr(torch, of_kind(array, self.dtype)) if is_inexact(array) else None)

    def _keyword(self, value: Any, rounded_to: str) -> Any:
        """A keyword argument as the module gets it: an array or tensor in the dtype of this side."""
        array = to_array(value)
        return value if array is None else self._tensor(rounded(array, rounded_to))

    def _input_gradients(self, tensors: Sequence[Any]) -> Arrays:
        layouts = one_each("inputs", self.layouts.get("inputs"), len(tensors))
        return {
            name: to_flax(_gradient(tensor), layout, name)
            for name, tensor, layout in zip(self.signature.names, tensors, layouts, strict=True)
            if tensor is not None and tensor.requires_grad
        }

    def _renamed(self, results: Results) -> Results:
        for quantity in ("map", "parameter_gradient", "buffer", "trained_parameter", "trained_buffer"):
            arrays = getattr(results, quantity)
            names = rename_all(arrays, self.rename)
            setattr(results, quantity, {names[path]: array for path, array in arrays.items()})
        return results


def _cast(module: Any, dtype: str) -> Any:
    """Casts parameters and buffers in place; ``module.to`` would make complex ones real."""
    import torch

    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() or tensor.is_complex():
            wide = "complex128" if dtype == "float64" else "complex64"
            tensor.data = tensor.data.to(getattr(torch, wide if tensor.is_complex() else dtype))
    return module


def _watch_calls(module: Any) -> list[str]:
    """The paths of the submodules whose calls have not returned, from the outside in, while ``module`` runs."""
    inside: list[str] = []
    for path, layer in module.named_modules():
        if path:
            layer.register_forward_pre_hook(lambda *_, path=path: inside.append(path))
            layer.register_forward_hook(lambda *_: inside.pop() and None)
    return inside


def _of_dtypes(error: Exception) -> str:
    """What to do about an error of PyTorch about dtypes."""
    if not any(word in str(error) for word in ("dtype", "ScalarType", "scalar type")):
        return ""
    return "; its code seems to choose a dtype itself, as .float() does: every module is compared with its own float64"


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
        if leaf.is_floating_point() or leaf.is_complex():
            real = real_form(leaf) if leaf.is_complex() else leaf
            wide = real.to(torch.promote_types(real.dtype, torch.float32))
            square = (leaf * leaf.conj()).real if leaf.is_complex() else wide.square()
            total = total + (wide * torch.tensor(cotangent, dtype=wide.dtype) + objective.curvature / 2 * square).sum()
    return total


def _buffers(module: Any) -> Arrays:
    """The buffers in the state_dict; others are constants of a module."""
    saved = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    return {name: numpy(buffer) for name, buffer in module.named_buffers(remove_duplicate=False) if name in saved}


def numpy(tensor: Any) -> np.ndarray:
    """A copy as a NumPy array, floats in float64, which holds every compared dtype."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    array: np.ndarray = (tensor.double() if tensor.is_floating_point() else tensor).numpy().copy()
    return array


def _gradient(tensor: Any) -> np.ndarray:
    return np.zeros(tuple(tensor.shape)) if tensor.grad is None else numpy(tensor.grad)
