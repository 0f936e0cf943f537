"""Loads and saves PyTorch state_dicts: `from_torch` and `to_torch`."""

import os
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from . import files
from .names import TUTORIAL_NAMES
from .rename import rename_all
from .rules import Entry
from .walk import MisfitError, entries

Module = TypeVar("Module", bound=nnx.Module)
StateDict = Mapping[str, Any] | str | os.PathLike[str]


def from_torch(module: Module, state_dict: StateDict, *, rename: Mapping[str, str] | None = None) -> Module:
    """Fills ``module`` with the weights of a PyTorch state_dict, in place.

    Every entry must match a variable and every variable an entry; nothing is reshaped to fit. Values are cast to the
    dtype of their variable. ``num_batches_tracked`` is ignored.

    A state_dict does not contain the token order a network was trained with. The source tutorial's multi-head network
    has ``token_order="article"``; its weights also load into ``"pixels"``, where they compute a different function.

    Args:
        module: any module whose parameters are in layers with a conversion rule.
        state_dict: a mapping from names to arrays or tensors; or the path of a ``.safetensors``, ``.pt`` or ``.pth``
            file, the latter two read with ``weights_only=True``. The entry ``"state_dict"`` of a training checkpoint is
            used.
        rename: a table from runs of path segments in ``state_dict`` to runs in ``module``, such as
            `flax_attn.convert.TUTORIAL_NAMES`; see `flax_attn.convert.rename`.

    Returns:
        ``module``.

    Raises:
        ValueError: missing, left-over or wrongly shaped entries, all listed with path, expected and got; names that
            collide after renaming; a file that is damaged or would run code; a parameter outside of layers with a rule
            (`flax_attn.convert.rule` registers one); an invalid rule. ``module`` is then unchanged.
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
    given = _renamed(_mapping(state_dict), rename)
    wanted = in_place(entries(module), given)
    problems: list[str] = []
    values: list[tuple[nnx.Variable[Any], jax.Array]] = []
    for path, entry in wanted.items():
        value = _value(path, entry, given, problems) if entry.variables else None
        if value is not None:
            # Copies: JAX may share the memory of an aligned array, which training in PyTorch would change.
            parts = zip(entry.variables, entry.split(value), strict=True)
            values += [(variable, jnp.array(part, variable.dtype, copy=True)) for variable, part in parts]
    problems += [
        f"{path}: expected no such entry, got {_describe(value)}"
        for path, value in given.items()
        if path not in wanted and path.rpartition(".")[2] != "num_batches_tracked"
    ]
    if problems:
        if all(path.startswith("module.") for path in given) and given:
            problems.append("every name starts with 'module.': pass rename={'module': ''}")
        raise MisfitError(
            f"state_dict does not fit {type(module).__name__}, which is left unchanged:\n  " + "\n  ".join(problems)
        )
    for variable, array in values:
        variable.set_value(array)
    if rename is not None and TUTORIAL_NAMES.items() <= rename.items():
        _warn_of_token_order(module)
    return module


def to_torch(
    module: nnx.Module,
    path: str | os.PathLike[str] | None = None,
    *,
    rename: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Returns the PyTorch state_dict of ``module`` as NumPy arrays; loading it with `from_torch` is bit-exact.

    Args:
        module: any module whose parameters are in layers with a conversion rule.
        path: a ``.safetensors`` file to write it to as well (whole or not at all).
        rename: the table that would load the result again, read from right to left: `flax_attn.convert.TUTORIAL_NAMES`
            gives the tutorials' names.

    Returns:
        A dictionary with PyTorch's names and layouts, and ``num_batches_tracked`` as 0.

    Raises:
        ValueError: a parameter outside of layers with a rule (`flax_attn.convert.rule` registers one), an invalid rule,
            names that collide, or a path with another suffix.

    Example:
        >>> from flax_attn.layers import Linear
        >>> {name: array.shape for name, array in to_torch(Linear(3, 2, rngs=nnx.Rngs(0))).items()}
        {'weight': (2, 3), 'bias': (2,)}
    """
    arrays = {name: _array(entry) for name, entry in entries(module).items()}
    names = rename_all(arrays, rename, invert=True)
    state_dict = {names[name]: array for name, array in arrays.items()}
    if path is not None:
        files.write(path, state_dict)
    return state_dict


def _mapping(state_dict: StateDict) -> Mapping[str, Any]:
    loaded = files.read(state_dict) if isinstance(state_dict, str | os.PathLike) else state_dict
    if not isinstance(loaded, Mapping):
        hint = ", pass its state_dict()" if hasattr(loaded, "state_dict") else ""
        raise ValueError(f"state_dict must be a mapping or the path of one, got {type(loaded).__name__}{hint}")
    # The usual training checkpoint, {"epoch": ..., "state_dict": ...}: only its weights are used.
    inner = loaded.get("state_dict")
    loaded = inner if isinstance(inner, Mapping) else loaded
    unnamed = [name for name in loaded if not isinstance(name, str)]
    if unnamed:
        raise ValueError(f"state_dict must have names for keys, got {', '.join(map(repr, unnamed))}")
    return loaded


def _renamed(state_dict: Mapping[str, Any], rename: Mapping[str, str] | None) -> dict[str, Any]:
    names = rename_all(state_dict, rename)
    return {names[name]: value for name, value in state_dict.items()}


def in_place(listed: Mapping[str, Entry], given: Mapping[str, Any]) -> dict[str, Entry]:
    """The entries to look for, by path; alternatives replace an entry if only they are given."""
    wanted: dict[str, Entry] = {}
    for path, entry in listed.items():
        instead = {path.removesuffix(entry.name) + other.name: other for other in entry.instead}
        wanted |= instead if path not in given and not instead.keys().isdisjoint(given) else {path: entry}
    return wanted


def _value(path: str, entry: Entry, given: Mapping[str, Any], problems: list[str]) -> np.ndarray | None:
    """The entry's value in PyTorch's layout; on failure None, with a line added to ``problems``."""
    expected = entry.shape
    kind = _kind(entry.variables[0].dtype)
    if path not in given:
        problems.append(f"{path}: expected shape {expected}, got nothing")
        return None
    try:
        value = _to_numpy(given[path])
    except Exception as error:  # a sparse, quantised or meta tensor, each with an error of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        problems.append(f"{path}: expected an array of {kind}, got {_describe(given[path])}: {reason}")
        return None
    if value is None or _kind(value.dtype) != kind:
        problems.append(f"{path}: expected an array of {kind}, got {_describe(given[path])}")
        return None
    if value.shape != expected:
        problems.append(f"{path}: expected shape {expected}, got {value.shape}")
        return None
    return value


def _kind(dtype: Any) -> str:
    """Values are cast within a kind, such as float64 to float32, never between kinds."""
    kinds = {"floats": jnp.floating, "whole numbers": jnp.integer}
    return next((name for name, kind in kinds.items() if jnp.issubdtype(dtype, kind)), f"dtype {dtype}")


def _to_numpy(value: Any) -> np.ndarray | None:
    """Converts arrays and tensors of any framework to NumPy; None for anything else."""
    if hasattr(value, "detach"):  # a tensor, recognised without importing torch
        value = value.detach().cpu()
        # NumPy has no bfloat16 that torch supports; float32 holds every bfloat16 exactly.
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return None
    return np.asarray(value)


def _describe(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return type(value).__name__


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
