"""How much rounding alone may change a result.

A limit on the relative error is meaningless for a tensor that is the small remainder of large sums: the gradient behind
a saturated softmax, or a constant map behind BatchNorm. Only rounding is left there, in PyTorch's result as in ours.
Such tensors are judged by Monte Carlo arithmetic (Parker 1997): PyTorch's float64 runs again with random relative
errors, up to the tolerance of outputs, on the operands of every arithmetic operation, forward and backward. A result
may be off by as much as that changes it, or as PyTorch's own float32 or bfloat16 is off.

Operations that only select or move numbers (maxima, views, masks) get no error, and zeros and infinities keep their
value. So a tie among inputs stays a tie, a wrong gradient at a tie stays wrong, and so does a NaN where PyTorch has a
number.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .comparison import Comparison
from .masks import KeepMasks
from .results import Objective, Results
from .tolerances import NOISE_FACTOR, NOISE_RUNS, NOISE_SIZES, QUANTITIES, UNDERFLOW, tolerance

OPERATIONS = """
    _adaptive_avg_pool2d _adaptive_avg_pool2d_backward _softmax _softmax_backward_data add addmm avg_pool2d
    avg_pool2d_backward bmm convolution convolution_backward cos div embedding_dense_backward exp log mean mm mul
    native_batch_norm native_batch_norm_backward native_layer_norm native_layer_norm_backward pow reciprocal sigmoid
    sigmoid_backward sin sqrt sub sum tanh tanh_backward
"""
ARITHMETIC = frozenset(OPERATIONS.split())
# BatchNorm writes to these two, so it must get the tensors themselves.
STATISTICS = ("running_mean", "running_var")


@contextmanager
def noise(size: float, seed: int, results: bool = False) -> Iterator[None]:
    """Adds random relative errors of up to ``size`` to the operands of PyTorch's arithmetic in the with-block.

    With ``results`` also to its results, so that equal results no longer are.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    generator = torch.Generator().manual_seed(seed)

    def shaken(value: Any, name: str = "") -> Any:
        if isinstance(value, tuple):
            return tuple(shaken(item) for item in value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or name in STATISTICS:
            return value
        unit = torch.rand(value.shape, dtype=value.dtype, generator=generator) * 2 - 1
        return value * (1 + size * unit)

    class Noise(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func._schema.name.removeprefix("aten::") not in ARITHMETIC:
                return func(*args, **(kwargs or {}))
            named = zip(args, func._schema.arguments, strict=False)
            out = func(*[shaken(value, argument.name) for value, argument in named], **(kwargs or {}))
            return shaken(out) if results else out

    with Noise():
        yield


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
