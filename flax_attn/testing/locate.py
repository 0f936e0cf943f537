"""Finds where two modules first differ: the first submodule whose output, or the gradient with respect to it, differs.

Submodules are paired by path. The layouts of arrays between them are unknown, so two arrays count as different if they
differ under every order of axes that gives them the same shape. The layouts of the outputs of the whole are known.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .arrays import arrangements
from .errors import relative_error
from .flax_side import FlaxSide
from .layouts import one_each, to_flax
from .masks import KeepMasks
from .noise import KINDS, noise
from .results import Arrays, Objective
from .tolerances import NOISE_FACTOR, NOISE_UNITS, UNITS
from .torch_side import TorchSide
from .trace import Call, trace_flax, trace_torch

Pairs = Iterator[tuple[str, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Finding:
    """The first place where the two sides differ.

    Attributes:
        path: of the submodule, "" for the whole module.
        what: "output", "gradient" (of the loss with respect to the output), or "not finite" (the output).
        kinds: the classes of the submodule, Flax's and PyTorch's.
        index: of the element that differs most, in PyTorch's layout.
        flax_value: that element on the Flax side.
        torch_value: the same on the PyTorch side.
        error: relative, of the whole array.
        given: whether the submodule's inputs are known to differ or to be non-finite already, which clears its own
            code.
        mode: "train" or "eval".
        dtype: of the Flax side; the PyTorch side is float64.
    """

    path: str
    what: str
    kinds: tuple[str, str]
    index: tuple[int, ...]
    flax_value: complex  # real, but for complex arrays
    torch_value: complex
    error: float
    given: bool
    mode: str
    dtype: str

    def __str__(self) -> str:
        where = f"{self.path or 'the module itself'} ({self.kinds[0]} in Flax, {self.kinds[1]} in PyTorch)"
        values = f"{list(self.index)}: flax {self.flax_value:.9g}, torch {self.torch_value:.9g}"
        told = {
            "output": f"first differs: output of {where}",
            "gradient": f"first differs, walking backwards: gradient that arrives at the output of {where}",
            "not finite": f"first not finite: output of {where}",
        }
        before = "; what it is given is wrong already, the fault lies before it" if self.given else ""
        return f"{told[self.what]} in {self.mode} mode, {self.dtype}: error {self.error:.2e}, at {values}{before}"


@dataclass(frozen=True)
class Located:
    """What a search found, and what was recorded for it.

    Attributes:
        finding: None if nothing differs.
        found: its two calls, Flax's and PyTorch's.
        flax_calls: all calls in the Flax module.
        torch_calls: all calls in the PyTorch module.
    """

    finding: Finding | None
    found: tuple[Call, Call] | None
    flax_calls: Sequence[Call]
    torch_calls: Sequence[Call]


def locate(
    ours: FlaxSide, theirs: TorchSide, inputs: Sequence[Any], objective: Objective, seed: Sequence[int], limit: float
) -> Located:
    """Runs both sides once more, recording every submodule, and PyTorch's a second time under rounding noise.

    Args:
        ours: the Flax side.
        theirs: the PyTorch side, in float64 with the weights rounded as ours.
        inputs: what both are called with.
        objective: what is differentiated.
        seed: of the keep-masks.
        limit: relative errors above it are differences, if they are larger than what the noise makes.

    Returns:
        The first call in PyTorch's order whose output differs or is NaN on either side; else the last one whose output
        has a different gradient; else the first one with an infinity on both sides; nothing if there is none.
    """
    masks = KeepMasks(*seed)
    torch_calls = trace_torch(theirs, inputs, objective, masks)  # first: it draws the masks
    with noise(NOISE_UNITS[0] * UNITS[ours.dtype], 0, **KINDS[ours.dtype]):
        moved = trace_torch(theirs, inputs, objective, KeepMasks(*seed))
    flax_calls = trace_flax(ours, inputs, objective, masks)
    calls = list(_pairs(flax_calls, torch_calls))
    search = _Search(ours, limit, {id(call): shaken for call, shaken in zip(torch_calls, moved, strict=True)})
    largest = max((_norm(gradient) for _, call in calls for gradient in call.gradients.values()), default=0.0)
    backwards = partial(search.gradient, floor=limit * largest)
    for look, order in ((search.output, calls), (backwards, calls[::-1]), (search.infinity, calls)):
        for mine, other in order:
            finding = look(mine, other)
            if finding is not None:
                return Located(finding, (mine, other), flax_calls, torch_calls)
    return Located(None, None, flax_calls, torch_calls)


class _Search:
    """Compares calls.

    Args:
        side: the Flax side.
        least: an error that counts as equal everywhere.
        moved: PyTorch's calls under rounding noise, by the identity of those without.
    """

    def __init__(self, side: FlaxSide, least: float, moved: Mapping[int, Call]) -> None:
        self.side, self.least, self.moved = side, least, moved

    def limit(self, other: Call, what: str, path: str) -> float:
        """The largest error that counts as equal."""
        moved, array = getattr(self.moved[id(other)], what).get(path), getattr(other, what)[path]
        rounding = self.least if moved is None else NOISE_FACTOR * _error(moved, array)
        return max(self.least, rounding if np.isfinite(rounding) else self.least)

    def output(self, mine: Call, other: Call) -> Finding | None:
        for path, left, right in self.aligned(mine, other, "values"):
            bad = np.isnan(left) | np.isnan(right) | (_infinite(left, right) & (left != right))
            if np.any(bad):
                return self.finding(mine, other, "not finite", left, right, bad)
            if _error(left, right) > self.limit(other, "values", path):
                return self.finding(mine, other, "output", left, right)
        return None

    def gradient(self, mine: Call, other: Call, floor: float) -> Finding | None:
        for path, left, right in self.aligned(mine, other, "gradients"):
            limit = self.limit(other, "gradients", path)
            # Zero by algebra up to rounding on both sides is no difference. NaN is neither above nor below.
            if not relative_error(left, right) <= limit and not max(_norm(left), _norm(right)) <= floor:
                return self.finding(mine, other, "gradient", left, right)
        return None

    def infinity(self, mine: Call, other: Call) -> Finding | None:
        for _, left, right in self.aligned(mine, other, "values"):
            if np.any(_infinite(left, right)):
                return self.finding(mine, other, "not finite", left, right, _infinite(left, right))
        return None

    def finding(
        self, mine: Call, other: Call, what: str, left: np.ndarray, right: np.ndarray, bad: np.ndarray | None = None
    ) -> Finding:
        """The finding at the element that differs most, or at the first ``bad`` one."""
        place = np.argmax(np.abs(1.0 * left - right) if bad is None else bad)
        index = tuple(int(i) for i in np.unravel_index(place, right.shape))
        before = list(self.aligned(mine, other, "inputs")) if what != "gradient" else []
        given = any(
            _error(a, b) > self.limit(other, "inputs", path) or np.any(np.isnan(a) | np.isnan(b))
            for path, a, b in before
        )
        return Finding(
            path=other.path,
            what=what,
            kinds=(mine.kind, other.kind),
            index=index,
            flax_value=left[index].item(),
            torch_value=right[index].item(),
            error=relative_error(left, right),
            given=given,
            mode="train" if self.side.train else "eval",
            dtype=self.side.dtype,
        )

    def aligned(self, mine: Call, other: Call, what: str) -> Pairs:
        """Pairs of arrays in PyTorch's layout: the given one for outputs of the whole, else the closest."""
        ours, theirs = getattr(mine, what), getattr(other, what)
        if what == "values" and not other.path:
            return _stated(ours, theirs, one_each("outputs", self.side.layouts.get("outputs"), len(theirs)))
        return _nearest(ours, theirs)


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


def _stated(ours: Arrays, theirs: Arrays, layouts: Sequence[str | None]) -> Pairs:
    for (path, right), layout in zip(theirs.items(), layouts, strict=True):
        # The destination of every element of PyTorch's array is the origin of every element of ours.
        places = to_flax(np.arange(right.size).reshape(right.shape), layout, path)
        if path in ours and ours[path].shape == places.shape:
            left = np.empty(right.size, ours[path].dtype)
            left[places.ravel()] = ours[path].ravel()
            yield path, left.reshape(right.shape), right


def _nearest(ours: Arrays, theirs: Arrays) -> Pairs:
    """Our arrays in the order of axes closest to theirs; none if no order fits."""
    for path, right in theirs.items():
        fitting = arrangements(ours[path], right) if path in ours else []
        if fitting:
            yield path, min(fitting, key=lambda array: _error(array, right)), right


def _error(left: np.ndarray, right: np.ndarray) -> float:
    """The relative error, where NaN equals NaN and infinities equal themselves."""
    return relative_error(*(np.nan_to_num(array, nan=3.0, posinf=2.0, neginf=-2.0) for array in (left, right)))


def _infinite(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    either: np.ndarray = np.isinf(left) | np.isinf(right)
    return either


def _norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array))
