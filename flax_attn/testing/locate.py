"""Where two modules part: the first submodule whose output, or the gradient that reaches it, is not the other side's.

Submodules are paired by path. How the arrays between them lie is nobody's statement, so two arrays count as different
when they differ under every order of axes that gives them one shape.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from .errors import relative_error
from .flax_side import FlaxSide
from .masks import KeepMasks
from .results import Objective
from .torch_side import TorchSide
from .trace import Call, trace_flax, trace_torch

MOST_AXES = 5  # up to here all orders of axes are tried


@dataclass(frozen=True)
class Finding:
    """The first place where the two sides part.

    Attributes:
        path: of the submodule, "" for the whole module.
        what: "output", "gradient" (of the loss with respect to the output), or "not finite".
        kinds: the classes of the submodule, Flax's and PyTorch's.
        index: of the element that differs most, in PyTorch's layout.
        flax_value: that element on the Flax side.
        torch_value: the same on the PyTorch side.
        error: relative, of the whole array.
        mode: "train" or "eval".
        dtype: of the Flax side; the PyTorch side is float64.
    """

    path: str
    what: str
    kinds: tuple[str, str]
    index: tuple[int, ...]
    flax_value: float
    torch_value: float
    error: float
    mode: str
    dtype: str

    def __str__(self) -> str:
        where = f"{self.path or 'the module itself'} ({self.kinds[0]} in Flax, {self.kinds[1]} in PyTorch)"
        values = f"{list(self.index)}: flax {self.flax_value:.9g}, torch {self.torch_value:.9g}"
        if self.what == "not finite":
            return f"first not finite: output of {where} in {self.mode} mode, {self.dtype}, at {values}"
        told = {
            "output": f"first differs: output of {where}",
            "gradient": f"first differs, walking backwards: gradient that arrives at the output of {where}",
        }
        return f"{told[self.what]} in {self.mode} mode, {self.dtype}: error {self.error:.2e}, at {values}"


def locate(
    ours: FlaxSide, theirs: TorchSide, inputs: Sequence[Any], objective: Objective, seed: Sequence[int], limit: float
) -> Finding | None:
    """Runs both sides once more, looking at every submodule.

    Args:
        ours: the Flax side.
        theirs: the PyTorch side, in float64 with the weights rounded as ours.
        inputs: what both are called with.
        objective: what is differentiated.
        seed: of the keep-masks.
        limit: relative errors above it are differences.

    Returns:
        The first call in PyTorch's order whose output is not finite or differs; else the last one whose output has
        another gradient; None where neither shows.
    """
    masks = KeepMasks(*seed)
    torch_calls = trace_torch(theirs, inputs, objective, masks)
    pairs = list(_pairs(trace_flax(ours, inputs, objective, masks), torch_calls))
    describe: dict[str, Any] = {"mode": "train" if ours.train else "eval", "dtype": ours.dtype}
    for mine, other in pairs:
        finding = _finite(mine, other, describe) or _difference(mine, other, "output", limit, describe)
        if finding is not None:
            return finding
    largest = max((_norm(gradient) for _, call in pairs for gradient in call.gradients), default=0.0)
    for mine, other in reversed(pairs):
        finding = _difference(mine, other, "gradient", limit, describe, floor=limit * largest)
        if finding is not None:
            return finding
    return None


def _pairs(ours: Sequence[Call], theirs: Sequence[Call]) -> Iterator[tuple[Call, Call]]:
    """The calls of submodules that both sides call equally often, in PyTorch's order."""
    mine: dict[str, list[Call]] = defaultdict(list)
    for call in ours:
        mine[call.path].append(call)
    often = Counter(call.path for call in theirs)
    for call in theirs:
        if len(mine[call.path]) == often[call.path]:
            often[call.path] -= 1
            yield mine[call.path].pop(0), call


def _finite(mine: Call, other: Call, describe: dict[str, Any]) -> Finding | None:
    for left, right in _aligned(mine.values, other.values):
        bad = np.argwhere(~(np.isfinite(left) & np.isfinite(right)))
        if len(bad):
            index = tuple(int(i) for i in bad[0])
            kinds = (mine.kind, other.kind)
            values = float(left[index]), float(right[index])
            return Finding(other.path, "not finite", kinds, index, *values, float("nan"), **describe)
    return None


def _difference(
    mine: Call, other: Call, what: str, limit: float, describe: dict[str, Any], floor: float = 0.0
) -> Finding | None:
    lefts, rights = (call.values if what == "output" else call.gradients for call in (mine, other))
    for left, right in _aligned(lefts, rights):
        error = relative_error(left, right)
        if error > limit and _norm(right) > floor:
            index = tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(left - right)), right.shape))
            kinds = (mine.kind, other.kind)
            return Finding(other.path, what, kinds, index, float(left[index]), float(right[index]), error, **describe)
    return None


def _aligned(ours: Sequence[Any], theirs: Sequence[Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of arrays, ours in the order of axes in which it is nearest to theirs; none where no order fits."""
    for left, right in zip(ours, theirs, strict=False):
        if left is None or right is None or left.dtype != np.float64 or left.ndim != right.ndim:
            continue
        orders = permutations(range(left.ndim)) if left.ndim <= MOST_AXES else [tuple(range(left.ndim))]
        fitting = [left.transpose(order) for order in orders if left.transpose(order).shape == right.shape]
        if fitting:
            yield min(fitting, key=lambda array: np.nan_to_num(relative_error(array, right), nan=np.inf)), right


def _norm(array: np.ndarray | None) -> float:
    return 0.0 if array is None else float(np.linalg.norm(array))
