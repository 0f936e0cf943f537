"""Walks a module by PyTorch's names: dotted paths of attribute names, and numbers in lists and sequences."""

from collections.abc import Iterator, Mapping
from typing import Any

from flax import nnx


def children(module: Any) -> Iterator[tuple[str, Any]]:
    """Yields the modules, lists of modules and variables directly inside ``module``, with PyTorch's names."""
    for name, child in _members(module):
        if isinstance(child, nnx.Module | nnx.Variable) or _holds_modules(child):
            yield str(name), child


def _members(module: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(module, nnx.List | list | tuple):
        yield from enumerate(module)
    elif isinstance(module, Mapping):
        yield from module.items()
    else:
        for name, child in vars(module).items():
            # A Sequential's layers are numbered, in subclasses too; other attributes of a subclass keep their names.
            if name == "layers" and isinstance(module, nnx.Sequential):
                yield from enumerate(child)
            else:
                yield name, child


def _holds_modules(child: Any) -> bool:
    if isinstance(child, Mapping):
        child = tuple(child.values())
    return isinstance(child, list | tuple) and any(
        isinstance(value, nnx.Module) or _holds_modules(value) for value in child
    )


def submodules(module: Any) -> Iterator[tuple[str, nnx.Module]]:
    """Yields ``module`` and every module inside it with its dotted path, the first if there are several."""
    yield from _submodules(module, (), set())


def _submodules(module: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, nnx.Module]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    yield ".".join(path), module
    for name, child in children(module):
        if not isinstance(child, nnx.Variable):
            yield from _submodules(child, (*path, name), seen)
