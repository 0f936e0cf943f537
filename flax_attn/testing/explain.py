"""Says how two modules differ where they do: by their settings, and by hypotheses that are tried on recorded arrays.

`EXPLANATIONS` is the table: each function looks for one kind of mistake and yields a line for what it finds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from .errors import relative_error
from .flax_side import FlaxSide
from .locate import Located
from .results import output_leaves
from .settings import padding_of, same_padding, settings_of
from .tolerances import EXPLAINED, tolerance
from .trace import Call

MOST = 5  # lines
MOST_AXES = 5  # up to this rank all orders of axes are tried
# Children that hold the two projections of attention.
QUERY_KEY = (("query", "key"), ("q", "k"), ("q_proj", "k_proj"), ("to_q", "to_k"), ("wq", "wk"), ("w_q", "w_k"))


@dataclass(frozen=True)
class Evidence:
    """What is known about a call that failed.

    Attributes:
        side: the Flax side.
        ours: all Flax modules by path.
        theirs: all PyTorch modules by Flax's path.
        located: the first two calls that differ, and all that were recorded.
        buffers: the buffers after the call, by path, Flax's and PyTorch's.
    """

    side: FlaxSide
    ours: Mapping[str, Any]
    theirs: Mapping[str, Any]
    located: Located
    buffers: Mapping[str, tuple[np.ndarray, np.ndarray]]

    @property
    def found(self) -> tuple[Call, Call] | None:
        """The first two calls that differ."""
        return self.located.found

    @property
    def path(self) -> str:
        """Of the layer that was found, "" for the whole and for none."""
        return self.found[1].path if self.found else ""


def explain(evidence: Evidence) -> list[str]:
    """How the two sides differ, one line for each mistake; empty if nothing is recognised."""
    lines: list[str] = []
    for explanation in EXPLANATIONS:
        if explanation is call_order and lines:
            break  # the order of independent calls is no mistake
        lines += explanation(evidence)
    return lines[:MOST]


def settings(evidence: Evidence) -> Iterator[str]:
    """Settings that differ: eps, momentum, rate, heads, stride, padding; of the layer that was found first."""
    found = evidence.path
    order = [found, *(call.path for call in evidence.located.torch_calls), *evidence.theirs]
    places: dict[str, list[str]] = {}
    for path in dict.fromkeys(path for path in order if path in evidence.ours and path in evidence.theirs):
        for line in _settings_at(path, evidence):
            places.setdefault(line, []).append(path or "the module itself")
    for line, where in places.items():
        yield f"{where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {line}"


def _settings_at(path: str, evidence: Evidence) -> Iterator[str]:
    layers = evidence.ours[path], evidence.theirs[path]
    left, right = map(settings_of, layers)
    call = next((call for call in evidence.located.flax_calls if call.path == path), None)
    size = next(iter(call.inputs.values())).shape[1:-1] if call and call.inputs else ()
    pads = [padding_of(layer, size) for layer in layers]
    if pads[0] and pads[1]:
        left["padding"], right["padding"] = pads[0], pads[1]
    for name in left.keys() & right.keys():
        if left[name].value != right[name].value:
            yield f"{name} {left[name].told} in Flax, {right[name].told} in PyTorch"


def activation(evidence: Evidence) -> Iterator[str]:
    """An activation that one side lacks, or another one in its place."""
    functions = _activations()
    for what, left, right in _differing(evidence):
        for name, function in functions.items():
            for side, wanted, instead in (("Flax", right, left), ("PyTorch", left, right)):
                if _fits(function(instead), wanted, instead):
                    yield f"{what}: equal after {name}, which {side} lacks"
                    return
        for before in (array for call in evidence.located.torch_calls for array in call.values.values()):
            if before.shape != right.shape or not _number(before):
                continue
            applied = {name: function(before) for name, function in functions.items()}
            mine, other = (
                next((name for name, array in applied.items() if _fits(array, wanted, instead)), None)
                for wanted, instead in ((left, right), (right, left))
            )
            if mine and other:
                yield f"{what}: {mine} in Flax, {other} in PyTorch"
                return


def _activations() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    import torch
    from torch.nn import functional

    def of_arrays(function: Any) -> Callable[[np.ndarray], np.ndarray]:
        return lambda array: np.asarray(function(torch.from_numpy(np.ascontiguousarray(array))))

    named = {name: getattr(functional, name) for name in ("relu", "silu", "sigmoid", "tanh", "leaky_relu", "elu")}
    gelus = {"exact gelu": functional.gelu, "approximate gelu": partial(functional.gelu, approximate="tanh")}
    return {name: of_arrays(function) for name, function in (named | gelus).items()}


def pooling(evidence: Evidence) -> Iterator[str]:
    """Another padding of the pooling in front of the layer."""
    import torch

    for _, left, right in _differing(evidence):
        for call in evidence.located.torch_calls:
            layer = evidence.theirs.get(call.path)
            if not isinstance(layer, torch.nn.MaxPool2d) or not any(
                _equal(each, right) for each in call.values.values()
            ):
                continue
            x = next(iter(call.inputs.values()))
            told = padding_of(layer, x.shape[-2:])
            for name, pads, fill in _paddings(layer, x.shape[-2:]):
                edges = [(0, 0)] * (x.ndim - 2)
                padded = torch.from_numpy(np.pad(x, edges + pads, constant_values=fill))
                pooled = torch.nn.functional.max_pool2d(padded, layer.kernel_size, layer.stride).numpy()
                if pooled.shape == left.shape and _fits(pooled, left, right):
                    yield f"{call.path}: padding {name} in Flax, {told.told if told else '?'} in PyTorch"
                    return


def _paddings(layer: Any, size: Sequence[int]) -> Iterator[tuple[str, list[tuple[int, int]], float]]:
    """Names, widths and values of what is put around a pooling's input by mistake."""
    kernel, stride = ([each] * 2 if isinstance(each, int) else each for each in (layer.kernel_size, layer.stride))
    same = [same_padding(*each) for each in zip(size, kernel, stride, strict=True)]
    yield "SAME", same, -np.inf
    yield "VALID", [(0, 0)] * 2, -np.inf
    own = padding_of(layer, size)
    if own:
        yield "of zeros", own.value, 0.0


def flattening(evidence: Evidence) -> Iterator[str]:
    """The same numbers in another order."""
    for what, left, right in _differing(evidence):
        rows = [np.sort(array.reshape(len(array), -1)) for array in (left, right) if array.ndim > 1]
        if rows and relative_error(*rows) <= EXPLAINED * relative_error(left, right):
            yield (
                f"{what}: the same numbers flattened in another order; PyTorch flattens b c h w, so move the channels "
                "to the front first"
            )
            return


def transposed(evidence: Evidence) -> Iterator[str]:
    """A square kernel that has to be transposed."""
    for layer, call, right, left in _replayed(evidence, parents=False):
        for path, variable in nnx.iter_graph(layer):
            if not isinstance(variable, nnx.Param) or variable.ndim < 2:
                continue
            kept = variable[...]
            for order in list(permutations(range(kept.ndim)))[1:]:
                if kept.transpose(order).shape != kept.shape:
                    continue
                variable.set_value(kept.transpose(order))
                again = _again(evidence, layer, call)
                variable.set_value(kept)
                if _becomes(again, right, left):
                    name = ".".join(map(str, path))
                    yield f"{call.path or 'the module itself'}: equal when {name} is transposed"
                    return


def swapped(evidence: Evidence) -> Iterator[str]:
    """Query and key in each other's place: the arguments of a call, or what is computed from them."""
    if evidence.found and all(f"input[{i}]" in call.inputs for i in (0, 1) for call in evidence.found):
        (a, b), (c, d) = ([call.inputs[f"input[{i}]"] for i in (0, 1)] for call in evidence.found)
        if _equal(a, d) and _equal(b, c) and not _equal(a, c):
            yield f"{evidence.found[1].path}: its first two arguments are swapped"
            return
    for layer, call, right, left in _replayed(evidence, parents=True):
        for query, key in QUERY_KEY:
            one, two = getattr(layer, query, None), getattr(layer, key, None)
            if one is None or two is None:
                continue
            _set(layer, {query: two, key: one})
            again = _again(evidence, layer, call)
            _set(layer, {query: one, key: two})
            if _becomes(again, right, left):
                yield f"{call.path or 'the module itself'}: equal when {query} and {key} are swapped"
                return


def running_variance(evidence: Evidence) -> Iterator[str]:
    """The biased variance in the running statistics."""
    for path, (mine, other) in evidence.buffers.items():
        owner, _, name = path.rpartition(".")
        layer = evidence.theirs.get(owner)
        call = next((call for call in evidence.located.torch_calls if call.path == owner), None)
        if name != "running_var" or call is None or not isinstance(getattr(layer, "momentum", None), float):
            continue
        x = next(iter(call.inputs.values()))
        count = x.size / x.shape[1]
        old = (1 - layer.momentum) * layer.running_var.numpy()
        if _fits((mine - old) * count / (count - 1), other - old, mine - old):
            yield (
                f"{owner}: running variance biased in Flax, unbiased in PyTorch; flax_attn.layers.BatchNorm does as "
                "PyTorch does"
            )
            return


def call_order(evidence: Evidence) -> Iterator[str]:
    """Layers that are called in another order, as pre-norm and post-norm."""
    names = [
        list(dict.fromkeys(call.path for call in calls))
        for calls in (evidence.located.flax_calls, evidence.located.torch_calls)
    ]
    both = set(names[0]) & set(names[1])
    for mine, other in zip(*([name for name in each if name in both] for each in names), strict=True):
        if mine != other:
            norm = "norm" in type(evidence.theirs[mine]).__name__.lower()
            norm_after = "norm" in type(evidence.theirs[other]).__name__.lower()
            hint = " (pre-norm, post-norm)" if norm else " (post-norm, pre-norm)" if norm_after else ""
            yield f"{mine} is called before {other} in Flax, after it in PyTorch{hint}"
            return


def _differing(evidence: Evidence) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What differs of the found layer's inputs and outputs, in PyTorch's layout."""
    if evidence.found is None:
        return
    mine, other = evidence.found
    where = other.path or "the module itself"
    for what, ours, theirs in (("input", mine.inputs, other.inputs), ("output", mine.values, other.values)):
        for path, right in theirs.items():
            both = _arrangements(ours[path], right) if path in ours and _number(right) else []
            if both:
                left = min(both, key=lambda array: relative_error(array, right))
                if relative_error(left, right) > tolerance("output", evidence.side.dtype):
                    yield f"{what} of {where}", left, right


def _replayed(evidence: Evidence, parents: bool) -> Iterator[tuple[Any, Call, np.ndarray, np.ndarray]]:
    """The found layer, or those around it as well, a call to repeat, and what it should and did return."""
    path = evidence.path
    around = [path, *(path.rsplit(".", i)[0] for i in range(1, path.count(".") + 1)), ""] if parents else [path]
    for name in dict.fromkeys(around) if evidence.found else ():
        calls = [
            [call for call in side if call.path == name]
            for side in (evidence.located.flax_calls, evidence.located.torch_calls)
        ]
        if not all(calls) or name not in evidence.ours:
            continue
        mine, other = calls[0][0], calls[1][0]
        if list(mine.values) == list(other.values) == ["output"]:
            yield evidence.ours[name], mine, other.values["output"], mine.values["output"]


def _again(evidence: Evidence, layer: Any, call: Call) -> np.ndarray | None:
    """What ``layer`` returns for the inputs of ``call``; None if it does not take them any more."""
    given = [jnp.asarray(x, evidence.side.dtype) if _number(x) else jnp.asarray(x) for x in call.inputs.values()]
    try:
        with evidence.side.settings():
            found = output_leaves(layer(*given))
    except Exception:  # a hypothesis that does not even run
        return None
    return np.asarray(found[0][1], np.float64)


def _arrangements(left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
    """``left`` in every order of its axes that gives the shape of ``right``."""
    if left.ndim != right.ndim or left.ndim > MOST_AXES:
        return []
    orders = permutations(range(left.ndim))
    return [turned for order in orders if (turned := left.transpose(order)).shape == right.shape]


def _becomes(hypothesis: np.ndarray | None, right: np.ndarray, left: np.ndarray) -> bool:
    """Whether a layer that returned ``left`` now returns PyTorch's result, in any order of axes."""
    if hypothesis is None or hypothesis.shape != left.shape:
        return False
    both = zip(_arrangements(hypothesis, right), _arrangements(left, right), strict=True)
    return any(_fits(again, right, before) for again, before in both)


def _fits(hypothesis: np.ndarray, wanted: np.ndarray, instead: np.ndarray) -> bool:
    """Whether a hypothesis explains ``wanted``, from which what there is ``instead`` differs much more."""
    error = relative_error(instead, wanted)
    return bool(error > 0 and relative_error(hypothesis, wanted) <= EXPLAINED * error)


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    return relative_error(left, right) <= tolerance("output", "float32")


def _number(array: np.ndarray) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _set(layer: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(layer, name, value)


EXPLANATIONS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    settings,
    pooling,
    activation,
    flattening,
    transposed,
    swapped,
    running_variance,
    call_order,
)
