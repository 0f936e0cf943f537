"""The entries of a module's state_dict."""

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .._tree import children
from .rules import RULES, Entry, find_rule

# No part of a state_dict: keys and counters of random streams, and what was recorded during a call.
TRANSIENT = (nnx.RngState, nnx.Intermediate)

# Buffers without weights: the number of batches, and what Swin's blocks compute from the sizes of map and window.
DERIVED = ("num_batches_tracked", "relative_position_index", "attn_mask")

DEEPEST = 64  # path segments: more than in any module that does not contain itself


class MisfitError(ValueError):
    """A module does not fit a state_dict or the rules."""


class _Found(NamedTuple):
    path: str
    entry: Entry
    layer: str


def entries(module: nnx.Module) -> dict[str, Entry]:
    """Every state_dict entry of ``module``, by path.

    Raises:
        MisfitError: variables or arrays without a rule, all listed.
        ValueError: an invalid rule, or two entries with one path.
    """
    found, unknown = survey(module)
    if unknown:
        outside = ", ".join(f"{_kind_of(value)} {path!r}" for path, value in unknown.items())
        raise MisfitError(
            f"module must hold its state in layers that have a conversion rule, got in {type(module).__name__} "
            f"outside of any: {outside}; flax_attn.convert.rule registers one for a layer of your own"
        )
    return found


def survey(module: nnx.Module) -> tuple[dict[str, Entry], dict[str, Any]]:
    """The state_dict entries of ``module``, and its variables and arrays that no rule lists, both by path.

    A type with a rule of its own answers for the arrays that it holds without a variable. Random streams and recorded
    values are no state.

    Raises:
        ValueError: an invalid rule, or two entries with one path.
    """
    graph = dict(nnx.iter_graph(module))
    owned = [(path, value) for path, value in graph.items() if isinstance(value, nnx.Variable)]
    found = list(_entries(module, (), frozenset(), frozenset(id(variable) for _, variable in owned)))
    known = {id(variable) for _, entry, _ in found for variable in entry.variables}
    missed = [(path, variable) for path, variable in owned if id(variable) not in known]
    missed = [(path, variable) for path, variable in missed if not isinstance(variable, TRANSIENT)]
    arrays = [(path, value) for path, value in graph.items() if _is_state(value) and not _answers(graph, path)]
    unknown = {".".join(map(str, path)): value for path, value in (*missed, *arrays)}
    _check_paths(found)
    return {path: entry for path, entry, _ in found}, unknown


def _is_state(value: Any) -> bool:
    """Whether ``value`` is an array, of anything but random keys."""
    return isinstance(value, jax.Array | np.ndarray) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _answers(graph: dict[Any, Any], path: tuple[Any, ...]) -> bool:
    """Whether the module that holds the array at ``path`` is of a type with a rule of its own."""
    around = (graph.get(path[:end]) for end in reversed(range(len(path))))
    return type(next(value for value in around if isinstance(value, nnx.Module))) in RULES


def _kind_of(value: Any) -> str:
    return type(value).__name__ if isinstance(value, nnx.Variable) else "array"


def _entries(module: Any, path: tuple[str, ...], listed: frozenset[int], owned: frozenset[int]) -> Iterator[_Found]:
    """``listed``: the variables listed by the rules of modules around ``module``."""
    if len(path) > DEEPEST:
        raise ValueError(f"module must be a tree, got one that contains itself at {'.'.join(path[:5])!r}")
    own = _follow_rule(module, path, owned)
    variables = {id(variable) for entry in own for variable in entry.variables}
    if not variables & listed:  # otherwise the rule of an outer module covers this layer
        for entry in own:
            yield _Found(".".join((*path, entry.name)), entry, _layer(module, path))
    for name, child in children(module):
        if not isinstance(child, nnx.Variable):
            yield from _entries(child, (*path, str(name)), listed | variables, owned)


def _layer(module: Any, path: tuple[str, ...]) -> str:
    return f"{type(module).__name__} at {'.'.join(path)!r}" if path else type(module).__name__


def _follow_rule(module: Any, path: tuple[str, ...], owned: frozenset[int]) -> list[Entry]:
    """The entries listed by the rule of ``module``, validated, as rules may be user code."""
    rule = find_rule(module)
    if rule is None:
        return []
    try:
        listed = list(rule(module))
        for entry in listed:
            _check_entry(entry, owned)
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"the conversion rule of {_layer(module, path)}: {reason}") from error
    return listed


def _check_entry(entry: Any, owned: frozenset[int]) -> None:
    if not isinstance(entry, Entry):
        raise ValueError(f"it must yield flax_attn.convert.Entry, got {type(entry).__name__}")
    if not isinstance(entry.name, str) or not all(entry.name.split(".")):
        raise ValueError(f"an entry's name must be dotted path segments, got {entry.name!r}")
    for variable in entry.variables:
        if not isinstance(variable, nnx.Variable):
            raise ValueError(f"variable of {entry.name!r} must be an nnx.Variable, got {type(variable).__name__}")
        if id(variable) not in owned:
            raise ValueError(f"variable of {entry.name!r} must be one of the module's own, got another")
    dtypes = {str(variable.dtype) for variable in entry.variables}
    if len(dtypes) > 1:
        raise ValueError(f"variables of {entry.name!r} must have one dtype, got {' and '.join(sorted(dtypes))}")
    if not entry.variables and entry.constant is None:
        raise ValueError(f"{entry.name!r} must have a variable or a constant, got neither")
    _check_transforms(entry)
    for other in entry.instead:
        _check_entry(other, owned)
    if entry.instead and {id(v) for other in entry.instead for v in other.variables} != set(map(id, entry.variables)):
        raise ValueError(f"the entries instead of {entry.name!r} must have its variables, got others")
    if entry.parts and sum(entry.parts.values()) != entry.shape[0]:
        raise ValueError(f"the parts of {entry.name!r} must have its {entry.shape[0]} rows, got {dict(entry.parts)}")


def _check_transforms(entry: Entry) -> None:
    """Numbers all elements from 1 and follows them to PyTorch's layout and back."""
    if not entry.variables:
        return
    ends = list(accumulate((variable.size for variable in entry.variables), initial=1))
    narrow = np.min_scalar_type(ends[-1])
    numbered = [
        np.arange(start, start + variable.size, dtype=narrow).reshape(variable.shape)
        for start, variable in zip(ends, entry.variables, strict=False)
    ]
    joined = entry.join(numbered)
    back = entry.split(joined)
    shapes, expected = [array.shape for array in back], [array.shape for array in numbered]
    if shapes != expected:
        raise ValueError(f"from_torch of {entry.name!r} must give Flax's shape {expected}, got {shapes}")
    count = ends[-1] - 1
    same = joined.size == count and int(joined.astype(np.uint64).sum()) == count * (count + 1) // 2
    if not same or not all(map(np.array_equal, back, numbered)):
        raise ValueError(f"to_torch and from_torch of {entry.name!r} must rearrange and undo each other, got otherwise")


def _check_paths(found: list[_Found]) -> None:
    named = [
        (path.removesuffix(entry.name) + name, layer)
        for path, entry, layer in found
        for name in (entry.name, *(one.name for one in entry.instead), *entry.parts)
    ]
    count = Counter(path for path, _ in named)
    twice = [f"{path!r} of {layer}" for path, layer in named if count[path] > 1]
    if twice:
        raise ValueError(f"every entry must have a path of its own, got {', '.join(twice)}")
