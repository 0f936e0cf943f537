"""Loads and saves PyTorch state_dicts: `from_torch` and `to_torch`."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from . import files, variants
from .names import TUTORIAL_NAMES
from .rename import rename_all, wrappers_in
from .rules import Entry
from .walk import DERIVED, MisfitError, entries

COUNT = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside its module
log = logging.getLogger("flax_attn")

Module = TypeVar("Module", bound=nnx.Module)
StateDict = Mapping[str, Any] | str | os.PathLike[str]


def from_torch(
    module: Module,
    state_dict: StateDict,
    *,
    key: str | None = None,
    rename: Mapping[str, str] | None = None,
    skip: str | Sequence[str] = (),
) -> Module:
    """Fills ``module`` with the weights of a PyTorch state_dict, in place.

    Every entry must match a variable and every variable an entry; nothing is reshaped to fit. Values are cast to the
    dtype of their variable. Buffers without weights are ignored: ``num_batches_tracked``, and Swin's
    ``relative_position_index`` and ``attn_mask``.

    A state_dict does not contain the token order a network was trained with. The source tutorial's multi-head network
    has ``token_order="article"``; its weights also load into ``"pixels"``, where they compute a different function.

    Args:
        module: any module whose parameters are in layers with a conversion rule.
        state_dict: a mapping from names to arrays or tensors; or the path of a file of safetensors or of
            ``torch.save``, which is read with ``weights_only=True``, or of the index of its shards. The suffix does not
            matter. The entry ``"state_dict"`` of a training checkpoint is used.
        key: the entry of a training checkpoint that holds the state_dict, such as ``"model_ema"``.
        rename: a table from runs of path segments in ``state_dict`` to runs in ``module``, such as
            `flax_attn.convert.TUTORIAL_NAMES`; see `flax_attn.convert.rename`.
        skip: paths in ``module``, such as ``"head"``, below which variables keep their values and entries are not used.
            What was skipped is logged.

    Returns:
        ``module``.

    Raises:
        ValueError: missing, left-over or wrongly shaped entries, all listed with path, expected and got, and with which
            arguments a block of this package would fit, if any; names that collide after renaming; a checkpoint whose
            state_dict is under another key; a path to skip that is neither in ``module`` nor in ``state_dict``; a file
            that is damaged or would run code; state outside of layers with a rule (`flax_attn.convert.rule` registers
            one), or layers stacked by ``nnx.vmap``; an invalid rule. ``module`` is then unchanged.
        FileNotFoundError: no such file.

    Example:
        >>> from flax_attn.layers import Linear
        >>> weights = {"weight": np.ones((2, 3), "float32"), "bias": np.zeros(2, "float32")}
        >>> linear = from_torch(Linear(3, 2, rngs=nnx.Rngs(0)), weights)
        >>> linear(jnp.ones((1, 3))).tolist()
        [[3.0, 3.0]]
    """
    if not isinstance(module, nnx.Module):
        raise ValueError(
            f"module must be a flax.nnx.Module, got {module if isinstance(module, type) else type(module)}"
        )
    given = _renamed(read_mapping(state_dict, key), rename)
    wanted = in_place(entries(module), given)
    given, wanted = _without(skip, given, wanted)
    values, problems = _matched(given, wanted)
    if problems:
        problems += [*_hints(given, _taken(given, wanted), rename), *variants.hints(module, given, _misfits)]
        raise MisfitError(
            f"state_dict does not fit {type(module).__name__}, which is left unchanged:\n  " + "\n  ".join(problems)
        )
    for _, variable, array in values.values():
        variable.set_value(_placed(array, variable))
    if rename is not None and TUTORIAL_NAMES.items() <= rename.items():
        _warn_of_token_order(module)
    return module


def to_torch(
    module: nnx.Module,
    path: str | os.PathLike[str] | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    tensors: bool = False,
) -> dict[str, Any]:
    """Returns the PyTorch state_dict of ``module``; loading it with `from_torch` is bit-exact.

    Args:
        module: any module whose parameters are in layers with a conversion rule.
        path: a file to write it to as well (whole or not at all): ``.safetensors``, or ``.pt`` and ``.pth`` as written
            by ``torch.save``.
        rename: the table that would load the result again, read from right to left: `flax_attn.convert.TUTORIAL_NAMES`
            gives the tutorials' names. A table of `flax_attn.convert.NAMES` also gives the order of rows that the
            package has.
        tensors: whether to return tensors, for ``load_state_dict``, in place of NumPy arrays.

    Returns:
        A dictionary with PyTorch's names and layouts, and ``num_batches_tracked`` as 0.

    Raises:
        ValueError: state outside of layers with a rule (`flax_attn.convert.rule` registers one), layers stacked by
            ``nnx.vmap``, an invalid rule, names that collide, or a path with another suffix.
        ImportError: tensors, or a file of them, are wanted and PyTorch is not installed.

    Example:
        >>> from flax_attn.layers import Linear
        >>> {name: array.shape for name, array in to_torch(Linear(3, 2, rngs=nnx.Rngs(0))).items()}
        {'weight': (2, 3), 'bias': (2,)}
    """
    arrays = _written(entries(module), rename)
    names = rename_all(arrays, rename, invert=True)
    state_dict = {names[name]: array for name, array in arrays.items()}
    if path is not None:
        files.write(path, state_dict)
    return files.to_tensors(state_dict) if tensors else state_dict


def _matched(given: Mapping[str, Any], wanted: Mapping[str, Entry]) -> tuple[dict[int, "_Loaded"], list[str]]:
    """The value of every variable, by its id, and what does not fit."""
    problems: list[str] = []
    values: dict[int, _Loaded] = {}
    for path, entry in wanted.items():
        value = _value(path, entry, given, problems)
        if value is not None:
            for variable, part in zip(entry.variables, entry.split(value), strict=True):
                # A copy: JAX may share the memory of an aligned array, which training in PyTorch would change.
                loaded = _Loaded(path, variable, np.array(part, variable.dtype))
                first = values.setdefault(id(variable), loaded)
                if not np.array_equal(first.array, loaded.array, equal_nan=True):
                    problems.append(
                        f"{path}: expected the values of {first.path}, as they share a variable, got others"
                    )
    taken = _taken(given, wanted)
    problems += [
        f"{path}: expected no such entry, got {_describe(value)}"
        for path, value in given.items()
        if path not in taken and path.rpartition(".")[2] not in DERIVED
    ]
    return values, problems


def _taken(given: Mapping[str, Any], wanted: Mapping[str, Entry]) -> set[str]:
    """The paths that are looked for, parts included."""
    return {name for path, entry in wanted.items() for name in (_parts(path, entry, given) or [path])}


def _parts(path: str, entry: Entry, given: Mapping[str, Any]) -> dict[str, int]:
    """The paths of the parts in which an entry is given, and their numbers of rows; none where it is given whole."""
    parts = _beside(path, entry, entry.parts)
    return parts if path not in given and not parts.keys().isdisjoint(given) else {}


def _beside(path: str, entry: Entry, named: Mapping[str, Any]) -> dict[str, Any]:
    """What a rule names beside an entry, by path."""
    return {path.removesuffix(entry.name) + name: value for name, value in named.items()}


def _misfits(module: nnx.Module, given: Mapping[str, Any]) -> int:
    return len(_matched(given, in_place(entries(module), given))[1])


def _hints(given: Mapping[str, Any], wanted: set[str], rename: Mapping[str, str] | None) -> list[str]:
    """Advice on names that wrappers of PyTorch left."""
    averaged = COUNT in given
    found = wrappers_in(name for name in given if name not in wanted and name != COUNT)
    if not wanted.isdisjoint(given):  # then what all names begin with is no wrapper
        found = [name for name in found if name != "module"]
    table = dict(rename or {})
    for name in found:
        run = name
        while table.pop(run, None) == "":  # one of several, as DataParallel within AveragedModel leaves them
            run += f".{name}"
        table[run] = ""
    hints = [f"names hold {', '.join(found)}, of wrappers: pass rename={table}"] if found else []
    return hints + ([f"{COUNT} is the counter of an AveragedModel: pass skip={COUNT!r}"] if averaged else [])


class _Loaded(NamedTuple):
    path: str
    variable: nnx.Variable[Any]
    array: np.ndarray


def _placed(array: np.ndarray, variable: nnx.Variable[Any]) -> jax.Array:
    """``array`` on the devices of the variable's present value, and free to move from there if that was."""
    present = variable.get_value()
    if isinstance(present, jax.core.Tracer) or getattr(present, "sharding", None) is None:
        return jnp.asarray(array)
    if isinstance(present, jax.ShapeDtypeStruct) or present.committed:
        placed: jax.Array = jax.device_put(array, present.sharding)
        return placed
    (device,) = present.devices()
    with jax.default_device(device):
        return jnp.asarray(array)


def read_mapping(state_dict: StateDict, key: str | None = None) -> Mapping[str, Any]:
    """The state_dict that a mapping, a file or an entry of either holds; arguments and errors as for `from_torch`."""
    loaded = files.read(state_dict) if isinstance(state_dict, str | os.PathLike) else state_dict
    if not isinstance(loaded, Mapping):
        hint = ", pass its state_dict()" if hasattr(loaded, "state_dict") else ""
        raise ValueError(f"state_dict must be a mapping or the path of one, got {type(loaded).__name__}{hint}")
    candidates = [name for name, value in loaded.items() if _holds_weights(value)]
    listed = " or ".join(f"key={name!r}" for name in candidates) or "no such entry"
    if key is not None:
        if not isinstance(loaded.get(key), Mapping):
            raise ValueError(f"key must name an entry that holds a state_dict, {listed}, got {key!r}")
        loaded = loaded[key]
    elif isinstance(loaded.get("state_dict"), Mapping):  # the usual one
        loaded = loaded["state_dict"]
    elif candidates:
        raise ValueError(f"state_dict must map names to arrays, got entries that hold such mappings: pass {listed}")
    unnamed = [name for name in loaded if not isinstance(name, str)]
    if unnamed:
        raise ValueError(f"state_dict must have names for keys, got {', '.join(map(repr, unnamed))}")
    return loaded


def _holds_weights(value: Any) -> bool:
    """Whether ``value`` looks like a state_dict: names, most of them of arrays."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    return 2 * sum(hasattr(item, "shape") for item in value.values()) > len(value)


def _without(
    skip: str | Sequence[str], given: Mapping[str, Any], wanted: Mapping[str, Entry]
) -> tuple[dict[str, Any], dict[str, Entry]]:
    """The entries given and wanted without those at or below the paths to skip."""
    paths = [skip] if isinstance(skip, str) else skip
    if not isinstance(paths, Sequence) or not all(isinstance(path, str) for path in paths):
        raise ValueError(f"skip must be a path or a sequence of paths, got {skip!r}")
    found = {path: [name for name in {**wanted, **given} if f"{name}.".startswith(f"{path}.")] for path in paths}
    if missing := [path for path, names in found.items() if not names]:
        raise ValueError(f"skip must name paths of module or state_dict, got {', '.join(map(repr, missing))}")
    skipped = {name for names in found.values() for name in names}
    if skipped:
        log.info("from_torch skipped %s", ", ".join(sorted(skipped)))
    left: Any = [{name: value for name, value in each.items() if name not in skipped} for each in (given, wanted)]
    return left[0], left[1]


def _renamed(state_dict: Mapping[str, Any], rename: Mapping[str, str] | None) -> dict[str, Any]:
    names = rename_all(state_dict, rename)
    return {names[name]: value for name, value in state_dict.items()}


def in_place(listed: Mapping[str, Entry], given: Mapping[str, Any]) -> dict[str, Entry]:
    """The entries to look for, by path; alternatives replace an entry if only they are given."""
    wanted: dict[str, Entry] = {}
    for path, entry in listed.items():
        instead = _beside(path, entry, {other.name: other for other in entry.instead})
        wanted |= instead if path not in given and not instead.keys().isdisjoint(given) else {path: entry}
    return wanted


def _value(path: str, entry: Entry, given: Mapping[str, Any], problems: list[str]) -> np.ndarray | None:
    """The entry's value in PyTorch's layout; on failure None, with a line added to ``problems`` for each fault."""
    if not entry.variables:
        return None
    kind, shapes = _kind(entry.variables[0].dtype), [entry.shape, *entry.shapes]
    parts = _parts(path, entry, given)
    if not parts:
        return _given(path, shapes, kind, given, problems)
    rows = [_given(name, [(n, *s[1:]) for s in shapes], kind, given, problems) for name, n in parts.items()]
    found = [part for part in rows if part is not None]
    return np.concatenate(found) if len(found) == len(rows) else None


def _given(
    path: str, shapes: Sequence[tuple[int, ...]], kind: str, given: Mapping[str, Any], problems: list[str]
) -> np.ndarray | None:
    """What is given for a path, in the first of the shapes that it may have; on failure None, with a line added."""
    expected = shapes[0]
    if path not in given:
        problems.append(f"{path}: expected shape {expected}, got nothing")
        return None
    if _is_lazy(given[path]):
        problems.append(
            f"{path}: expected shape {expected}, got {_describe(given[path])}; call the PyTorch module once, so that "
            "its lazy layers get their shapes"
        )
        return None
    try:
        value = to_numpy(given[path])
    except Exception as error:  # a sparse, quantised or meta tensor, each with an error of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        problems.append(f"{path}: expected an array of {kind}, got {_describe(given[path])}: {reason}")
        return None
    if value is None or _kind(value.dtype) != kind:
        problems.append(f"{path}: expected an array of {kind}, got {_describe(given[path])}")
        return None
    if value.shape not in shapes:
        problems.append(f"{path}: expected shape {expected}, got {value.shape}")
        return None
    return value.reshape(expected)


def _kind(dtype: Any) -> str:
    """Values are cast within a kind, such as float64 to float32, never between kinds."""
    kinds = {"floats": jnp.floating, "complex numbers": jnp.complexfloating, "whole numbers": jnp.integer}
    return next((name for name, kind in kinds.items() if jnp.issubdtype(dtype, kind)), f"dtype {dtype}")


def to_numpy(value: Any) -> np.ndarray | None:
    """Converts arrays and tensors of any framework to NumPy; None for anything else."""
    if hasattr(value, "detach"):  # a tensor, recognised without importing torch
        value = value.detach().cpu().resolve_conj().resolve_neg()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy has by an extension that PyTorch does not know
            return np.asarray(value.float()).astype(jnp.bfloat16)
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return None
    return np.asarray(value)


def _is_lazy(value: Any) -> bool:
    """Whether ``value`` is a parameter or buffer of a lazy layer, which has no shape before the first call."""
    return any(base.__name__ == "UninitializedTensorMixin" for base in type(value).__mro__)


def _describe(value: Any) -> str:
    try:
        return f"{value.dtype} of shape {tuple(value.shape)}"
    except Exception:  # no array, or a tensor of a kind that has no shape
        return type(value).__name__


def _written(listed: Mapping[str, Entry], rename: Mapping[str, str] | None) -> dict[str, np.ndarray]:
    """The arrays of entries by path: of those that ``rename`` names, where an entry may be held in others."""
    ends = {ours.rpartition(".")[2] for ours in (rename or {}).values()}

    def named(others: Mapping[str, Any]) -> bool:
        return any(name.partition(".")[0] in ends for name in others)

    arrays: dict[str, np.ndarray] = {}
    for path, entry in listed.items():
        whole = _array(entry)
        instead = {other.name: _array(other) for other in entry.instead}
        rows = np.split(whole, np.cumsum([*entry.parts.values()])[:-1]) if entry.parts else []
        parts = dict(zip(entry.parts, rows, strict=True))
        arrays |= _beside(path, entry, next((one for one in (instead, parts) if named(one)), {entry.name: whole}))
    return arrays


def _array(entry: Entry) -> np.ndarray:
    if not entry.variables:
        return np.array(entry.constant)
    return np.array(entry.join([np.asarray(variable[...]) for variable in entry.variables]), order="C")


def _warn_of_token_order(module: nnx.Module) -> None:
    for path, inner in nnx.iter_modules(module):
        if getattr(inner, "token_order", None) == "pixels" and hasattr(getattr(inner, "attn1", None), "w_qs"):
            where = ".".join(map(str, path)) or type(module).__name__
            warnings.warn(
                f"{where}: the tutorial trained its multi-head network in token_order='article'; these weights "
                "compute another function in 'pixels'",
                stacklevel=3,
            )
