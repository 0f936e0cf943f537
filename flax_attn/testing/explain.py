"""Says how two modules differ where they do: by their settings, and by hypotheses that are tried on recorded arrays.

`EXPLANATIONS` is the table: each function looks for one kind of mistake and yields a line for what it finds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations

import numpy as np
from flax import nnx

from .arrays import activations, equal, fits, fits_turned
from .errors import relative_error
from .evidence import Evidence
from .results import is_float
from .settings import mistaken_paddings, padding_of, settings_of
from .tolerances import EXPLAINED

MOST = 5  # lines
# Children that hold the two projections of attention.
QUERY_KEY = (("query", "key"), ("q", "k"), ("q_proj", "k_proj"), ("to_q", "to_k"), ("wq", "wk"), ("w_q", "w_k"))


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
    order = [found, *(call.path for call in evidence.torch_calls), *evidence.theirs]
    places: dict[str, list[str]] = {}
    for path in dict.fromkeys(path for path in order if path in evidence.ours and path in evidence.theirs):
        for line in _settings_at(path, evidence):
            places.setdefault(line, []).append(path or "the module itself")
    yield from _grouped(places)


def _grouped(places: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Each line with the first of its places and the number of the others."""
    for line, where in places.items():
        yield f"{where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {line}"


def _settings_at(path: str, evidence: Evidence) -> Iterator[str]:
    layers = evidence.ours[path], evidence.theirs[path]
    left, right = map(settings_of, layers)
    call = next((call for call in evidence.flax_calls if call.path == path), None)
    size = next(iter(call.inputs.values())).shape[1:-1] if call and call.inputs else ()
    pads = [padding_of(layer, size) for layer in layers]
    if pads[0] and pads[1]:
        left["padding"], right["padding"] = pads[0], pads[1]
    for name in left.keys() & right.keys():
        if left[name].value != right[name].value:
            yield f"{name} {left[name].told} in Flax, {right[name].told} in PyTorch"


def activation(evidence: Evidence) -> Iterator[str]:
    """An activation that one side lacks, or another one in its place."""
    functions = activations()
    for what, left, right in evidence.differing():
        for name, function in functions.items():
            for side, wanted, instead in (("Flax", right, left), ("PyTorch", left, right)):
                if fits(function(instead), wanted, instead):
                    yield f"{what}: equal after {name}, which {side} lacks"
                    return
        for before in (array for call in evidence.torch_calls for array in call.values.values()):
            if before.size == right.size:
                before = before.reshape(right.shape)  # a flattening may follow
            if before.shape[: right.ndim] != right.shape or not is_float(before):
                continue
            axes = tuple(range(right.ndim, before.ndim))  # a global average pooling may follow
            applied = {name: function(before).mean(axes) for name, function in functions.items()}
            mine, other = (
                next((name for name, array in applied.items() if fits(array, wanted, instead)), None)
                for wanted, instead in ((left, right), (right, left))
            )
            if mine and other:
                yield f"{what}: {mine} in Flax, {other} in PyTorch"
                return


def pooling(evidence: Evidence) -> Iterator[str]:
    """Another padding of the pooling in front of the layer."""
    import torch

    for _, left, right in evidence.differing():
        for call in evidence.torch_calls:
            layer = evidence.theirs.get(call.path)
            if not isinstance(layer, torch.nn.MaxPool2d) or not equal(next(iter(call.values.values())), right):
                continue
            x = next(iter(call.inputs.values()))
            told = padding_of(layer, x.shape[-2:])
            for name, pads, fill in mistaken_paddings(layer, x.shape[-2:]):
                edges = [(0, 0)] * (x.ndim - 2)
                padded = torch.from_numpy(np.pad(x, edges + pads, constant_values=fill))
                pooled = torch.nn.functional.max_pool2d(padded, layer.kernel_size, layer.stride).numpy()
                if pooled.shape == left.shape and fits(pooled, left, right):
                    yield f"{call.path}: padding {name} in Flax, {told.told if told else '?'} in PyTorch"
                    return


def flattening(evidence: Evidence) -> Iterator[str]:
    """The same numbers in another order."""
    for what, left, right in evidence.differing():
        rows = [np.sort(array.reshape(len(array), -1)) for array in (left, right) if array.ndim > 1]
        if rows and relative_error(*rows) <= EXPLAINED * relative_error(left, right):
            yield (
                f"{what}: the same numbers flattened in another order; PyTorch flattens b c h w, so move the channels "
                "to the front first"
            )
            return


def transposed(evidence: Evidence) -> Iterator[str]:
    """A square kernel that has to be transposed."""
    for layer, call, right, left in evidence.replayed(parents=False):
        for path, variable in nnx.iter_graph(layer):
            if not isinstance(variable, nnx.Param) or variable.ndim < 2:
                continue
            kept = variable[...]
            for order in list(permutations(range(kept.ndim)))[1:]:
                if kept.transpose(order).shape != kept.shape:
                    continue
                variable.set_value(kept.transpose(order))
                again = evidence.again(layer, call)
                variable.set_value(kept)
                if fits_turned(again, right, left):
                    name = ".".join(map(str, path))
                    yield f"{call.path or 'the module itself'}: equal when {name} is transposed"
                    return


def swapped(evidence: Evidence) -> Iterator[str]:
    """Query and key in each other's place: the arguments of a call, or what is computed from them."""
    if evidence.found and all(f"input[{i}]" in call.inputs for i in (0, 1) for call in evidence.found):
        (a, b), (c, d) = ([call.inputs[f"input[{i}]"] for i in (0, 1)] for call in evidence.found)
        if equal(a, d) and equal(b, c) and not equal(a, c):
            yield f"{evidence.found[1].path}: its first two arguments are swapped"
            return
    for layer, call, right, left in evidence.replayed(parents=True):
        for query, key in QUERY_KEY:
            one, two = getattr(layer, query, None), getattr(layer, key, None)
            if one is None or two is None:
                continue
            setattr(layer, query, two)
            setattr(layer, key, one)
            again = evidence.again(layer, call)
            setattr(layer, query, one)
            setattr(layer, key, two)
            if fits_turned(again, right, left):
                yield f"{call.path or 'the module itself'}: equal when {query} and {key} are swapped"
                return


def running_variance(evidence: Evidence) -> Iterator[str]:
    """The biased variance in the running statistics."""
    biased = []
    for path, (mine, other) in evidence.buffers.items():
        owner, _, name = path.rpartition(".")
        momentum = getattr(evidence.theirs.get(owner), "momentum", None)
        call = next((call for call in evidence.torch_calls if call.path == owner), None)
        if name == "running_var" and call and isinstance(momentum, float):
            x = next(iter(call.inputs.values()))
            count = x.size / x.shape[1]
            kept = (1 - momentum) * evidence.theirs[owner].running_var.numpy()
            biased += [owner] if fits((mine - kept) * count / (count - 1), other - kept, mine - kept) else []
    told = "running variance biased in Flax, unbiased in PyTorch; flax_attn.layers.BatchNorm does as PyTorch does"
    yield from _grouped({told: biased} if biased else {})


def call_order(evidence: Evidence) -> Iterator[str]:
    """Layers that are called in another order, as pre-norm and post-norm."""
    sides = (evidence.flax_calls, evidence.torch_calls)
    paths = [list(dict.fromkeys(call.path for call in side)) for side in sides]
    for mine, other in zip(
        *([path for path in side if path in paths[0] and path in paths[1]] for side in paths), strict=True
    ):
        if mine != other:
            norms = ["norm" in type(evidence.theirs[path]).__name__.lower() for path in (mine, other)]
            hint = " (pre-norm, post-norm)" if norms[0] else " (post-norm, pre-norm)" if norms[1] else ""
            yield f"{mine} is called before {other} in Flax, after it in PyTorch{hint}"
            return


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
