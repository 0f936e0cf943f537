"""The entries of a module's state_dict."""

from collections.abc import Iterator
from typing import Any

from flax import nnx

from .._tree import children
from .rules import Entry, find_rule


def entries(module: nnx.Module) -> Iterator[tuple[str, Entry]]:
    """Yields every state_dict entry of ``module`` with its path.

    Raises:
        ValueError: a parameter or buffer that belongs to no layer with a rule.
    """
    yield from _entries(module, ())


def _entries(module: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Entry]]:
    rule = find_rule(module)
    if rule is not None:
        for entry in rule(module):
            yield ".".join((*path, entry.name)), entry
        return
    for name, child in children(module):
        if isinstance(child, nnx.Variable):
            if isinstance(child, nnx.Param | nnx.BatchStat):
                raise ValueError(
                    f"module must hold its parameters in layers that have a conversion rule, got "
                    f"{type(child).__name__} {'.'.join((*path, name))!r} directly in {type(module).__name__}"
                )
        else:
            yield from _entries(child, (*path, name))
