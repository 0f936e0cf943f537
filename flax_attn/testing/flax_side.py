"""The Flax module of a pair, compiled once, then called, differentiated or trained."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .. import ops
from .._tree import submodules
from ..convert import from_torch, to_torch
from ..convert.walk import entries
from ..layers import Dropout
from .inputs import Signature, map_leaves, to_array
from .intercept import intercept
from .layouts import Layouts, one_each, to_flax
from .masks import DropoutError, KeepMasks, Masks, replay
from .results import Arrays, Objective, Results, is_inexact, of_kind, output_leaves, real_form

# Up to this number of parameters compilation takes longer than running a module a few hundred times.
SMALL = 2**17


class FlaxSide:
    """A copy of a module in one dtype and mode.

    Args:
        module: the module, which is not changed.
        signature: of its call.
        kwargs: keyword arguments of its call.
        dtype: of parameters and inputs. Running statistics are never narrower than float32.
        train: whether it is in training mode.
        layouts: of inputs, outputs and dropouts.
        maps: whether to compute attention maps.
        precision: of matrix products, as in ``jax.default_matmul_precision``.
        compiler_options: as in ``jax.jit``.
    """

    def __init__(
        self,
        module: nnx.Module,
        *,
        signature: Signature,
        kwargs: Mapping[str, Any],
        dtype: str,
        train: bool,
        layouts: Layouts,
        maps: bool,
        precision: str,
        compiler_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.signature, self.dtype, self.train, self.layouts, self.precision = (
            signature,
            dtype,
            train,
            layouts,
            precision,
        )
        self.maps, self.compiler_options = maps, None if compiler_options is None else dict(compiler_options)
        with self.settings():
            self.kwargs = map_leaves(lambda leaf, _: self._keyword(leaf), dict(kwargs), "")
        self.parameters = parameter_paths(module)
        self.graphdef, self.params, self.rest = self._split(module)
        self._run = self.compiled(self._evaluate)

    @contextmanager
    def settings(self) -> Iterator[None]:
        """JAX's settings for this dtype and precision."""
        with jax.enable_x64(self.dtype == "float64"), jax.default_matmul_precision(self.precision):
            yield

    def compiled(self, function: Any) -> Any:
        """``jax.jit`` with the caller's options, or with those for this dtype."""
        options = self.compiler_options
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        if options is None and self.dtype == "float64" and jax.default_backend() == "cpu" and size <= SMALL:
            # In float64 only correctness matters, and compiling without optimisation takes half the time.
            options = {"xla_backend_optimization_level": 0}
        return jax.jit(function, compiler_options=options)

    def with_weights_of(self, module: nnx.Module) -> "FlaxSide":
        """The same compiled program for another module of the same structure."""
        other = copy.copy(self)
        _, other.params, other.rest = self._split(module)
        return other

    def run(self, inputs: Sequence[Any], objective: Objective, masks: KeepMasks) -> Results:
        """Calls and differentiates the module."""
        with self.settings():
            arguments = self.arguments(inputs, objective, masks)
            _, gradients, output, state, maps = self._run(self.params, self.rest, *arguments)
            by_name = self._state_dict(gradients[0], self.rest)
            after = self._state_dict(state)
        return Results(
            output=numpy(output),
            map=numpy(maps),
            parameter_gradient={path: by_name[path] for path in self.parameters},
            input_gradient=numpy({self.signature.names[i]: gradient for i, gradient in gradients[1].items()}),
            buffer=self._buffers(after),
        )

    def fit(
        self, optimizer: Any, batches: Sequence[Sequence[Any]], objective: Objective, masks: Sequence[KeepMasks]
    ) -> Results:
        """Trains the module from its initial weights, one step per entry of ``masks``, cycling through the batches.

        Args:
            optimizer: an ``optax.GradientTransformation``.
            batches: inputs of all steps, repeated as often as needed.
            objective: the same for all.
            masks: of every step.
        """
        import optax

        @jax.jit
        def update(gradients: Any, moments: Any, params: Any) -> Any:
            updates, moments = optimizer.update(gradients, moments, params)
            return optax.apply_updates(params, updates), moments

        losses = []
        with self.settings():
            params, rest, moments = self.params, self.rest, optimizer.init(self.params)
            for step, keep in enumerate(masks):
                arguments = self.arguments(batches[step % len(batches)], objective, keep)
                loss, (gradients, _), _, state, _ = self._run(params, rest, *arguments)
                rest = nnx.split_state(state, nnx.Param, ...)[1]
                params, moments = update(gradients, moments, params)
                losses.append(loss)
            after = self._state_dict(params, rest)
        return Results(
            loss={"loss": np.asarray(losses, np.float64)},
            trained_parameter={path: after[path] for path in self.parameters},
            trained_buffer=self._buffers(after),
        )

    def arguments(self, inputs: Sequence[Any], objective: Objective, masks: KeepMasks) -> tuple[Any, ...]:
        """The arguments of the compiled function after the module's state."""
        arrays = [
            None if array is None else to_flax(array, layout, name)
            for name, array, layout in zip(
                self.signature.names, inputs, one_each("inputs", self.layouts.get("inputs"), len(inputs)), strict=True
            )
        ]
        floats = {i: self._array(array) for i, array in enumerate(arrays) if array is not None and is_inexact(array)}
        others = {i: None if array is None else jnp.asarray(array) for i, array in enumerate(arrays) if i not in floats}
        wanted = one_each("outputs", self.layouts.get("outputs"), len(objective.cotangents))
        cotangents = {
            path: to_flax(array, layout, path)
            for path, array, layout in zip(objective.paths, objective.cotangents, wanted, strict=True)
        }
        drawn = masks.for_flax(self.layouts.get("dropouts", {}))
        return floats, others, cotangents, jnp.asarray(objective.curvature), drawn

    def module(self, params: Any, rest: Any, masks: Masks) -> Any:
        """The module with the given state and the dropout masks of ``masks``."""
        # A copy: an inner trace must not write to variables of an outer one.
        merged = nnx.merge(self.graphdef, params, rest, copy=True)
        _share_dropout(merged, masks)
        return merged

    def _evaluate(
        self, params: Any, rest: Any, floats: Any, others: Any, cotangents: Any, curvature: Any, masks: Masks
    ) -> Any:
        def loss(params: Any, floats: Any) -> Any:
            module = self.module(params, rest, masks)
            found = output_leaves(self.call(module, in_order(floats, others)))
            # Values that a module sows are not part of its state.
            state = nnx.state(module, nnx.Not(nnx.Intermediate))
            return weighted_loss(found, cotangents, curvature), (dict(found), state)

        (value, (output, state)), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, floats)
        gradients = jax.tree.map(jnp.conj, gradients)  # of complex numbers, see `real_form`
        module = self.module(params, rest, masks)
        arguments = self.signature.arrange(in_order(floats, others))
        maps = ops.attention_maps(module, *arguments, **self.kwargs) if self.maps else {}
        return value, gradients, output, state, maps

    def call(self, module: Any, inputs: Sequence[Any]) -> Any:
        """Calls the module; errors give the arguments of the call."""
        try:
            return module(*self.signature.arrange(inputs), **self.kwargs)
        except DropoutError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
            layouts = one_each("inputs", self.layouts.get("inputs"), len(inputs))
            given = ", ".join(
                f"{name} {None if x is None else x.shape} ({'as in PyTorch' if layout is None else layout})"
                for name, x, layout in zip(self.signature.names, inputs, layouts, strict=True)
            )
            raise ValueError(f"flax_module must take the inputs in their layouts, got {given}: {error}") from error

    def _array(self, array: np.ndarray) -> jax.Array:
        return jnp.asarray(array, of_kind(array, self.dtype) if is_inexact(array) else None)

    def _keyword(self, value: Any) -> Any:
        """A keyword argument as the module gets it: an array or tensor in the dtype of this side."""
        array = to_array(value)
        return value if array is None else self._array(array)

    def _split(self, module: nnx.Module) -> Any:
        with self.settings():
            copied = cast(module, self.dtype)
            nnx.pop(copied, nnx.Intermediate)
            copied.train() if self.train else copied.eval()
            return nnx.split(copied, nnx.Param, ...)

    def _state_dict(self, *state: Any) -> Arrays:
        arrays = to_torch(nnx.merge(self.graphdef, *state))
        return numpy({path: array for path, array in arrays.items() if not path.endswith("num_batches_tracked")})

    def _buffers(self, arrays: Arrays) -> Arrays:
        return {path: value for path, value in arrays.items() if path not in self.parameters}


def load_in_float64(module: nnx.Module, state_dict: Mapping[str, Any], rename: Mapping[str, str] | None) -> nnx.Module:
    """A copy of ``module`` with the weights of ``state_dict`` in full precision."""
    with jax.enable_x64(True):
        return from_torch(cast(module, "float64"), state_dict, rename=rename)


def cast(module: nnx.Module, dtype: str) -> nnx.Module:
    """A copy of ``module`` with all floats rounded to ``dtype``; statistics stay at least float32."""

    def rounded(leaf: Any) -> Any:
        return leaf.astype(of_kind(leaf, dtype)) if is_inexact(leaf) else leaf

    def widened(leaf: Any) -> Any:
        leaf = rounded(leaf)
        return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) if is_inexact(leaf) else leaf

    graphdef, statistics, rest = nnx.split(module, nnx.BatchStat, ...)  # type: ignore[misc]
    copied: nnx.Module = nnx.merge(graphdef, jax.tree.map(widened, statistics), jax.tree.map(rounded, rest), copy=True)
    return copied


def parameter_paths(module: nnx.Module) -> set[str]:
    """The names of the parameters in a state_dict, without those of buffers."""
    return {path for path, entry in entries(module).items() if entry.is_parameter}


def in_order(floats: Mapping[int, Any], others: Mapping[int, Any]) -> list[Any]:
    """The inputs in the order of the call."""
    both = {**others, **floats}
    return [both[i] for i in range(len(both))]


def numpy(arrays: Mapping[str, Any]) -> Arrays:
    """Converts arrays to NumPy, floats to float64, which holds every compared dtype."""
    return {
        path: np.asarray(array, np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else np.asarray(array)
        for path, array in arrays.items()
    }


def _share_dropout(module: nnx.Module, masks: Masks) -> None:
    keep = replay(masks)
    for path, layer in submodules(module):
        own = next((kind for kind in (Dropout, nnx.Dropout) if isinstance(layer, kind)), None)
        if own is not None and type(layer).__call__ is not own.__call__:
            raise DropoutError(
                f"flax_module must drop in {own.__module__}.Dropout itself, the masks of others cannot be shared, got "
                f"{type(layer).__name__} {path!r}"
            )
        if isinstance(layer, Dropout):
            layer.keep_mask = partial(_keep_mask, partial(keep, path))
        elif isinstance(layer, nnx.Dropout):
            intercept(layer, partial(_dropped, layer, partial(keep, path)))


def _keep_mask(keep: Any, _key: jax.Array, _rate: float, shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(keep(shape))


def _dropped(layer: nnx.Dropout, keep: Any, call: Any, x: jax.Array, **options: Any) -> jax.Array:
    """``nnx.Dropout`` with a given mask."""
    deterministic = options.get("deterministic")
    if (layer.deterministic if deterministic is None else deterministic) or layer.rate == 0:
        result: jax.Array = call(x, **options)
        return result
    shared = [axis % x.ndim for axis in layer.broadcast_dims]
    shape = tuple(1 if axis in shared else size for axis, size in enumerate(x.shape))
    return ops.dropout(x, keep(shape), layer.rate)


def weighted_loss(
    found: Sequence[tuple[str, jax.Array]], cotangents: Mapping[str, jax.Array], curvature: jax.Array
) -> jax.Array:
    if {path for path, _ in found} != set(cotangents):
        mine, other = (
            ", ".join(f"{path} {getattr(leaf, 'shape', leaf)}" for path, leaf in side) or "none"
            for side in (found, cotangents.items())
        )
        raise ValueError(
            f"flax_module must return arrays at the places of torch_module, {other} in Flax's layouts, got {mine}"
        )
    total = jnp.zeros(())
    for path, leaf in found:
        cotangent = cotangents[path]
        if not isinstance(leaf, jax.Array):
            raise ValueError(f"flax_module must return arrays, nested or not, got {type(leaf).__name__} at {path}")
        if leaf.shape != cotangent.shape:
            raise ValueError(
                f"{path} of flax_module must have PyTorch's shape in its layout, {cotangent.shape}, got {leaf.shape}; "
                "layouts read 'PyTorch -> Flax' for outputs too"
            )
        if is_inexact(leaf):
            wide = (real_form(leaf) if jnp.iscomplexobj(leaf) else leaf).astype(total.dtype)
            square = (leaf * leaf.conj()).real if jnp.iscomplexobj(leaf) else jnp.square(wide)
            total = total + jnp.sum(wide * cotangent.astype(total.dtype) + curvature / 2 * square)
    return total
