"""The entries of a module's state_dict."""

from collections.abc import Iterator
from typing import Any

from flax import nnx

from .._tree import children
from .rules import Entry, find_rule


def entries(module: nnx.Module) -> Iterator[tuple[str, Entry]]:
    """Yields every state_dict entry of ``module`` with its path.

    Raises:
        ValueError: a parameter or buffer that no rule knows, all of them named.
    """
    found = list(_entries(module, ()))
    known = {id(entry.variable) for _, entry in found}
    unknown = [
        f"{type(variable).__name__} {'.'.join(map(str, path))!r}"
        for path, variable in nnx.iter_graph(module)
        if isinstance(variable, nnx.Param | nnx.BatchStat) and id(variable) not in known
    ]
    if unknown:
        raise ValueError(
            f"module must hold its parameters in layers that have a conversion rule, got in {type(module).__name__} "
            f"outside of any: {', '.join(unknown)}"
        )
    yield from found


def _entries(module: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Entry]]:
    rule = find_rule(module)
    if rule is not None:
        for entry in rule(module):
            yield ".".join((*path, entry.name)), entry
        return
    for name, child in children(module):
        if not isinstance(child, nnx.Variable):
            yield from _entries(child, (*path, name))
