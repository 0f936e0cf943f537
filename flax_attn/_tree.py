"""Walks a module in PyTorch's naming: dotted paths, attributes by name, lists and sequences by number."""

from collections.abc import Iterator, Mapping
from typing import Any

from flax import nnx


def children(module: Any) -> Iterator[tuple[str, Any]]:
    """Yields the modules, lists of modules and variables directly inside ``module``, by PyTorch's names."""
    if type(module) is nnx.Sequential:
        module = module.layers
    if isinstance(module, nnx.List | list | tuple):
        named: Any = ((str(index), child) for index, child in enumerate(module))
    elif isinstance(module, Mapping):
        named = module.items()
    else:
        named = vars(module).items()
    for name, child in named:
        if isinstance(child, nnx.Module | nnx.Variable) or _holds_modules(child):
            yield name, child


def _holds_modules(child: Any) -> bool:
    if isinstance(child, Mapping):
        return any(isinstance(value, nnx.Module) for value in child.values())
    return isinstance(child, list | tuple) and any(isinstance(value, nnx.Module) for value in child)


def submodules(module: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, nnx.Module]]:
    """Yields ``module`` and every module inside it with its dotted path."""
    yield ".".join(path), module
    for name, child in children(module):
        if not isinstance(child, nnx.Variable):
            yield from submodules(child, (*path, name))
