"""What rounding explains: differences beyond a tolerance that is right for small modules.

Rounding errors grow with depth and size, and a tensor that is the small remainder of large sums, the gradient behind a
saturated softmax say, has hardly anything else. Both are measured: PyTorch's float64 runs again under `noise`, and a
result may be off by `NOISE_FACTOR` times as much as that changes it, or as PyTorch's own float32 or bfloat16 is off.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .comparison import Comparison, rounded_call
from .masks import KeepMasks
from .noise import KINDS, noise
from .optimizers import OptimizerPair
from .report import LOST, Row
from .results import Objective, Results
from .tolerances import (
    DTYPES,
    NOISE_FACTOR,
    NOISE_RUNS,
    NOISE_SIZES,
    NOISE_UNITS,
    QUANTITIES,
    UNDERFLOW,
    UNITS,
    WIDENING_RUNS,
    tolerance,
)

Run = Callable[[], Results]
RowsOf = Callable[[Results, Results], list[Row]]


def widened(comparison: Comparison, rows: Sequence[Row], inputs: Sequence[Any], objective: Objective) -> list[Row]:
    """The rows of single calls, with bounds that rounding in PyTorch explains where some failed.

    A bound becomes `NOISE_FACTOR` times the larger of PyTorch's own error and of what errors of a few units in the last
    place on all operands change, unless the caller gave it. The narrow dtypes keep theirs where float64 shows a fault
    already.
    """
    rows = list(rows)
    calls = dict.fromkeys((row.dtype, row.mode) for row in rows)
    for dtype, mode in sorted(calls, key=lambda call: DTYPES.index(call[0])):
        if dtype != "float64" and any(not row.ok for row in rows if row.dtype == "float64"):
            break
        places = [i for i, row in enumerate(rows) if (row.dtype, row.mode) == (dtype, mode)]
        given, wanted = rounded_call(inputs, objective, dtype)
        reference = comparison.theirs(mode, "float64", dtype)

        def run(reference: Any = reference, given: Any = given, wanted: Any = wanted) -> Results:
            results: Results = reference.run(given, wanted, KeepMasks(comparison.seed))
            return results

        def rows_of(moved: Results, truth: Results, mode: str = mode, dtype: str = dtype) -> list[Row]:
            return comparison.rows_of(moved, moved, truth, mode, dtype)

        found = widen([rows[i] for i in places], run, rows_of, comparison.tolerances)
        for i, row in zip(places, found, strict=True):
            rows[i] = row
    return rows


def widened_training(
    comparison: Comparison,
    rows: list[Row],
    batches: Sequence[Sequence[Any]],
    objective: Objective,
    steps: int,
    optimizers: OptimizerPair,
) -> list[Row]:
    """The rows of training runs, widened in the same way."""

    def run() -> Results:
        masks = [KeepMasks(comparison.seed, step) for step in range(steps)]
        return comparison.trained(batches, objective, optimizers, masks)

    def rows_of(moved: Results, truth: Results) -> list[Row]:
        zero = comparison.zero_in_training(batches[0], objective)
        return comparison.trained_rows_of(moved, truth, rows[0].mode, zero)

    return widen(rows, run, rows_of, comparison.tolerances)


def widen(rows: list[Row], run: Run, rows_of: RowsOf, fixed: Collection[tuple[str, str]]) -> list[Row]:
    """The rows with bounds from runs of ``run`` under noise, until none fails or there were enough.

    Args:
        rows: of one dtype.
        run: runs PyTorch's float64.
        rows_of: compares a run with that without noise, in rows of the same order.
        fixed: the (quantity, dtype) whose bounds stay.
    """

    def held(row: Row) -> bool:
        return row.ok or (row.quantity, row.dtype) in fixed

    if all(map(held, rows)):
        return rows
    dtype = rows[0].dtype
    rows = [row if held(row) else _allowed(row, row.torch_error) for row in rows]
    truth = run()
    for seed in range(WIDENING_RUNS[dtype]):
        if all(map(held, rows)):
            break
        with noise(UNITS[dtype] * NOISE_UNITS[seed % len(NOISE_UNITS)], seed, **KINDS[dtype]):
            moved = rows_of(run(), truth)
        by_place = {(row.quantity, row.path): row.error for row in moved}
        rows = [row if held(row) else _allowed(row, by_place.get((row.quantity, row.path), 0.0)) for row in rows]
    return rows


def _allowed(row: Row, rounding: float) -> Row:
    """The row, which may be off by `NOISE_FACTOR` times ``rounding``, if that is a number."""
    bound = NOISE_FACTOR * rounding
    if not np.isfinite(bound) or bound <= row.tolerance:
        return row
    return replace(row, tolerance=bound, note=LOST if bound >= 1 else row.note)


def unexplained(
    comparison: Comparison, inputs: Sequence[Any], objective: Objective, mode: str, dtype: str
) -> list[str]:
    """Differences beyond the tolerance that rounding cannot explain, one line per tensor.

    Args:
        comparison: the pair.
        inputs: of the call, as for `Comparison.rows`, rounded to ``dtype``; they may hold infinities and NaN. Both
            sides then have to be infinite or NaN in the same places, and are compared in all others.
        objective: what is differentiated, rounded likewise.
        mode: "train" or "eval".
        dtype: of the Flax side.
    """
    masks = KeepMasks(comparison.seed)
    reference = comparison.theirs(mode, "float64", dtype)
    truth = reference.run(inputs, objective, masks)
    ours = comparison.ours(mode, dtype).run(inputs, objective, masks)
    # An error as large in PyTorch's own narrow dtype is rounding too, for instance if all sums come out slightly low.
    moved = [comparison.theirs(mode, dtype, dtype).run(inputs, objective, KeepMasks(comparison.seed))]
    for seed in range(NOISE_RUNS):
        # The largest errors first; smaller ones too, as a gate may pass from 0 to 1 and its gradient through a peak.
        # In narrow dtypes few digits decide between maxima; float64 has many, and a tie behind arithmetic remains one.
        with noise(tolerance("output", dtype) / 2 ** (seed % NOISE_SIZES), seed, results=dtype != "float64"):
            moved.append(reference.run(inputs, objective, KeepMasks(comparison.seed)))
        complaints = [
            f"{dtype} {mode} {quantity} {path}: {complaint}"
            for quantity in QUANTITIES
            for path in dict.fromkeys([*truth.of(quantity), *ours.of(quantity)])
            if (complaint := _complaint(path, quantity, ours, truth, moved, dtype))
        ]
        if not complaints:
            break
    return complaints


def _complaint(
    path: str, quantity: str, ours: Results, truth: Results, moved: Sequence[Results], dtype: str
) -> str | None:
    if path not in ours.of(quantity) or path not in truth.of(quantity):
        return "missing on one side"
    got, expected = ours.of(quantity)[path], truth.of(quantity)[path]
    if got.shape != expected.shape:
        return f"shape {got.shape}, expected {expected.shape}"
    differ = _kinds(got) != _kinds(expected)
    if differ.any():
        place = tuple(int(i) for i in np.argwhere(differ)[0])
        return f"{got[place]} at {list(place)}, expected {expected[place]}"
    distance = _distance(got, expected)
    by_noise = max(_distance(run.of(quantity)[path], expected) for run in moved)
    # A small gradient may be a difference of large ones: it is relative to all of the call.
    together = truth.parameter_gradient | truth.input_gradient if "gradient" in quantity else {path: expected}
    size = float(np.hypot.reduce([_distance(np.zeros_like(array), array) for array in together.values()]))
    allowed = tolerance(quantity, dtype) * size + NOISE_FACTOR * by_noise + UNDERFLOW[dtype]
    return None if distance <= allowed else f"off by {distance:.2e}, where {allowed:.2e} is allowed"


def _kinds(array: np.ndarray) -> np.ndarray:
    """0 for finite numbers, 1 for NaN, 2 and 3 for the infinities."""
    kinds: np.ndarray = np.isnan(array) + 2 * np.isposinf(array) + 3 * np.isneginf(array)
    return kinds


def _distance(got: np.ndarray, expected: np.ndarray) -> float:
    """The norm of the difference, where both are finite."""
    both = np.isfinite(got) & np.isfinite(expected)
    return float(np.linalg.norm(got[both].astype(np.float64) - expected[both]))
