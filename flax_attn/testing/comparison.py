"""The steps of a comparison, each of which returns rows of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from flax import nnx

from .._tree import submodules
from ..convert.rename import rename_all
from .errors import relative_error, rounded
from .evidence import Evidence
from .explain import explain
from .flax_side import FlaxSide
from .inputs import Signature
from .layouts import Layouts
from .locate import Finding, locate
from .masks import KeepMasks
from .optimizers import OptimizerPair
from .report import Row
from .results import Objective, Results
from .tolerances import QUANTITIES, TRAINED, ZERO, tolerance
from .torch_side import TorchMaps, TorchSide

Zero = Mapping[str, frozenset[str]]


@dataclass
class Comparison:
    """A pair of modules and how they are called; see `compare` for the fields."""

    flax_module: nnx.Module
    torch_module: Any
    signature: Signature
    flax_kwargs: Mapping[str, Any]
    torch_kwargs: Mapping[str, Any]
    layouts: Layouts
    rename: Mapping[str, str] | None
    torch_maps: TorchMaps | None
    zero_gradients: Zero
    precision: str
    seed: int
    name: str
    compiler_options: Mapping[str, Any] | None = None
    tolerances: Mapping[tuple[str, str], float] = field(default_factory=dict)
    shares: "Comparison | None" = None
    _compiled: dict[tuple[str, str], FlaxSide] = field(default_factory=dict)

    def rows(self, inputs: Sequence[Any], objective: Objective, mode: str, dtype: str) -> list[Row]:
        """Compares one call in one mode and dtype."""
        inputs, objective = rounded_call(inputs, objective, dtype)
        masks = KeepMasks(self.seed)
        truth = self.theirs(mode, "float64", dtype).run(inputs, objective, masks)
        theirs = truth
        if dtype != "float64":
            theirs = self.theirs(mode, dtype, dtype).run(inputs, objective, KeepMasks(self.seed))
        ours = self.ours(mode, dtype).run(inputs, objective, masks)
        return self.rows_of(ours, theirs, truth, mode, dtype)

    def trained_rows(
        self, batches: Sequence[Sequence[Any]], objective: Objective, steps: int, label: str, optimizers: OptimizerPair
    ) -> list[Row]:
        """Compares two training runs of ``steps`` steps, also for modules with buffers and no parameter."""
        masks = [KeepMasks(self.seed, step) for step in range(steps)]
        theirs = self.trained(batches, objective, optimizers, masks)
        ours = self.ours("train", "float64").fit(optimizers.flax, batches, objective.trainable(), masks)
        rows = self.trained_rows_of(ours, theirs, label, self.zero_in_training(batches[0], objective))
        return [row if row.ok or row.quantity != "loss" else _with_step(row, ours, theirs) for row in rows]

    def trained(
        self,
        batches: Sequence[Sequence[Any]],
        objective: Objective,
        optimizers: OptimizerPair,
        masks: Sequence[KeepMasks],
    ) -> Results:
        """PyTorch's training run, one step per entry of ``masks``, which it draws."""
        side = self.theirs("train", "float64", "float64")
        return side.fit(optimizers.torch, batches, objective.trainable(), masks)

    def zero_in_training(self, inputs: Sequence[Any], objective: Objective) -> frozenset[str]:
        """The parameters whose gradient is zero by algebra in train mode."""
        side = self.theirs("train", "float64", "float64")
        return _vanishing(side.run(inputs, objective.trainable(), KeepMasks(self.seed, 0)))

    def rows_of(self, ours: Results, theirs: Results, truth: Results, mode: str, dtype: str) -> list[Row]:
        """The rows for the results of one call."""
        zero = _vanishing(truth)
        everything = _norm_of_gradients(truth)
        sides = (ours, theirs, truth)
        return [row for name in QUANTITIES for row in self._quantity(name, *sides, mode, dtype, everything, zero)]

    def trained_rows_of(self, ours: Results, theirs: Results, label: str, zero: frozenset[str]) -> list[Row]:
        """The rows for two training runs; ``zero`` are the parameters whose gradient is zero by algebra."""
        everything = _norm(theirs.trained_parameter.values()) or 1.0
        sides = (ours, theirs, theirs)
        return [row for name in TRAINED for row in self._quantity(name, *sides, label, "float64", everything, zero)]

    def locate(
        self, inputs: Sequence[Any], objective: Objective, rows: Sequence[Row]
    ) -> tuple[Finding | None, list[str]]:
        """Where and how the two sides first differ, if one of the failed ``rows`` is about a single call."""
        failed = next((row for row in rows if not row.ok and row.quantity in QUANTITIES), None)
        if failed is None:
            return None, []
        inputs, objective = rounded_call(inputs, objective, failed.dtype)
        ours, theirs = self.ours(failed.mode, failed.dtype), self.theirs(failed.mode, "float64", failed.dtype)
        limit = self._limit("output", failed.dtype)
        located = locate(ours, theirs, inputs, objective, [self.seed], limit)
        masks = KeepMasks(self.seed)
        wanted = theirs.run(inputs, objective, masks).buffer
        got = ours.run(inputs, objective, masks).buffer if wanted else {}
        with ours.settings():
            drawn = masks.for_flax(self.layouts.get("dropouts", {}))
            module = ours.module(ours.params, ours.rest, drawn)
        named = dict(theirs.module.named_modules())
        evidence = Evidence(
            ours,
            dict(submodules(module)),
            {rename_all([path], self.rename)[path]: layer for path, layer in named.items()},
            located.flax_calls,
            located.torch_calls,
            located.found,
            {path: (got[path], array) for path, array in wanted.items() if path in got},
        )
        return located.finding, explain(evidence)

    def with_weights_of(self, flax_module: nnx.Module, torch_module: Any) -> "Comparison":
        """The same compiled programs for another pair of the same structure."""
        return replace(self, flax_module=flax_module, torch_module=torch_module, shares=self, _compiled={})

    def ours(self, mode: str, dtype: str) -> FlaxSide:
        """The Flax side, compiled when it is first called."""
        if self.shares is not None and (mode, dtype) not in self._compiled:
            self._compiled[mode, dtype] = self.shares.ours(mode, dtype).with_weights_of(self.flax_module)
        if (mode, dtype) not in self._compiled:
            self._compiled[mode, dtype] = FlaxSide(
                self.flax_module,
                signature=self.signature,
                kwargs=self.flax_kwargs,
                dtype=dtype,
                train=mode == "train",
                layouts=self.layouts,
                maps=self.torch_maps is not None,
                precision=self.precision,
                compiler_options=self.compiler_options,
            )
        return self._compiled[mode, dtype]

    def theirs(self, mode: str, dtype: str, rounded_to: str) -> TorchSide:
        """The PyTorch side."""
        return TorchSide(
            self.torch_module,
            signature=self.signature,
            kwargs=self.torch_kwargs,
            dtype=dtype,
            rounded_to=rounded_to,
            train=mode == "train",
            layouts=self.layouts,
            maps=self.torch_maps,
            rename=self.rename,
        )

    def _limit(self, quantity: str, dtype: str) -> float:
        given = self.tolerances.get((quantity, dtype))
        return (
            given if given is not None else tolerance(quantity, dtype, jax.default_backend(), self.name, self.precision)
        )

    def _quantity(
        self,
        quantity: str,
        ours: Results,
        theirs: Results,
        truth: Results,
        mode: str,
        dtype: str,
        everything: float,
        zero: frozenset[str],
    ) -> list[Row]:
        """The rows of one quantity; ``everything`` is the norm that parts that are zero by algebra are relative to."""
        rows = []
        limit = self._limit(quantity, dtype)
        mine, reference, other = ours.of(quantity), truth.of(quantity), theirs.of(quantity)
        most = tolerance("parameter gradient", "float32") * everything  # of what the caller says is zero
        named = self.zero_gradients["train" if quantity in TRAINED else mode]
        for path in dict.fromkeys([*reference, *mine]):
            here = (quantity, path, mode, dtype)
            if path not in mine or path not in reference:
                side = "flax" if path not in mine else "torch"
                rows.append(Row(*here, float("inf"), 0.0, limit, f"missing in {side}"))
            elif "gradient" in quantity and (path in zero or (path in named and _norm([reference[path]]) <= most)):
                norms = [_norm([side[path]]) / everything for side in (mine, reference, other)]
                rows.append(Row(*here, _largest(norms[:2]), norms[2], limit, "zero by algebra"))
            elif quantity == "trained parameter" and path in zero | named:
                # It was moved by the rounding errors in its gradient, which differ between the sides.
                error = _norm([mine[path] - reference[path]]) / everything
                rows.append(Row(*here, error, 0.0, limit, "zero by algebra"))
            else:
                error = relative_error(mine[path], reference[path])
                note = _note(mine[path], reference[path])
                rows.append(Row(*here, error, relative_error(other[path], reference[path]), limit, note))
        return rows


def _vanishing(truth: Results) -> frozenset[str]:
    """The parameters and inputs whose gradient is zero but for rounding: a bias before a norm, a key's under a softmax.

    PyTorch's float64 decides, for all dtypes. Exact zeros are none, as those of a dead ReLU.
    """
    gradients = truth.parameter_gradient | truth.input_gradient
    most = ZERO * _norm_of_gradients(truth)
    return frozenset(path for path, array in gradients.items() if 0 < _norm([array]) <= most)


def rounded_call(inputs: Sequence[Any], objective: Objective, dtype: str) -> tuple[list[Any], Objective]:
    """The inputs and cotangents, rounded to ``dtype``."""
    arrays = [None if array is None else rounded(array, dtype) for array in inputs]
    cotangents = [rounded(array, dtype) for array in objective.cotangents]
    return arrays, replace(objective, cotangents=cotangents)


def _with_step(row: Row, ours: Results, theirs: Results) -> Row:
    """The row of the losses with the first step at which they differ."""
    mine, other = ours.loss["loss"], theirs.loss["loss"]
    scale = float(np.max(np.abs(other[np.isfinite(other)]), initial=0.0))
    step = int(np.argmax(~(np.abs(mine - other) <= row.tolerance * scale)))
    return replace(row, note=f"first at step {step + 1}: flax {mine[step]:.9g}, torch {other[step]:.9g}")


def _note(mine: np.ndarray, reference: np.ndarray) -> str:
    bad = [side for side, array in (("flax", mine), ("torch", reference)) if not np.all(np.isfinite(array))]
    if bad:
        return f"not finite in {' and '.join(bad)}"
    if np.iscomplexobj(mine) != np.iscomplexobj(reference):
        return f"complex in {'flax' if np.iscomplexobj(mine) else 'torch'} alone"
    return "" if np.any(reference) else "zero in torch"


def _norm_of_gradients(results: Results) -> float:
    return _norm([*results.parameter_gradient.values(), *results.input_gradient.values()]) or 1.0


def _norm(arrays: Any) -> float:
    return float(np.sqrt(sum(np.sum(np.square(np.abs(array), dtype=np.float64)) for array in arrays)))


def _largest(values: Sequence[float]) -> float:
    return float(np.max(values))  # NaN if one value is; the result of Python's max would depend on the order
