"""Plants faults in the imported flax_attn, by the names of its functions, classes and arguments.

No source is quoted, so a fault survives any refactoring that keeps these names; a name that is gone is an error.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

import pytest

import flax_attn
from flax_attn.convert.rules import RULES

Plant = Callable[[pytest.MonkeyPatch], None]


def modules():
    return [module for name, module in list(sys.modules.items()) if name.split(".")[0] == flax_attn.__name__]


def constant(name: str, value: Any) -> Plant:
    """Another value for a module's constant, "ops.attention.MASKED_SCORE" say."""
    path, _, attribute = name.rpartition(".")
    return lambda patch: patch.setattr(attrgetter(path)(flax_attn), attribute, value)


def wrap(name: str, wrong: Callable[..., Any]) -> Plant:
    """``wrong(right, *args, **kwargs)`` in place of ``right``: a method, or a function wherever it was imported to."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        path, _, attribute = name.rpartition(".")
        owner = attrgetter(path)(flax_attn)
        right = getattr(owner, attribute)

        @functools.wraps(right)  # with its signature, which says how a block is called
        def planted(*args: Any, **kwargs: Any) -> Any:
            return wrong(right, *args, **kwargs)

        if inspect.isclass(owner):
            patch.setattr(owner, attribute, planted)
            return
        for module in modules():
            for key in [key for key, value in vars(module).items() if value is right]:
                patch.setattr(module, key, planted)

    return plant


def arguments(name: str, **changed: Any) -> Plant:
    """Calls a function, or builds a class, with other values for some of its arguments, whatever the caller says."""

    def wrong(right: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(right).bind(*args, **kwargs)
        bound.arguments.update(changed)
        return right(*bound.args, **bound.kwargs)

    return wrap(f"{name}.__init__" if inspect.isclass(attrgetter(name)(flax_attn)) else name, wrong)


def after(name: str, change: Callable[[Any], Any]) -> Plant:
    """Changes the result of a function or method."""
    return wrap(name, lambda right, *args, **kwargs: change(right(*args, **kwargs)))


def built(name: str, change: Callable[[Any], Any]) -> Plant:
    """Changes an instance of a class once it is built."""

    def wrong(right: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> None:
        right(self, *args, **kwargs)
        change(self)

    return wrap(f"{name}.__init__", wrong)


def entry(layer: type, name: str, **changed: Any) -> Plant:
    """Another entry ``name`` in the conversion rule of a layer; a function of the layer gives its ``variable``."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = RULES[layer]

        def wrong(module: Any) -> Any:
            values = {key: value(module) if key == "variable" else value for key, value in changed.items()}
            return [replace(each, **values) if each.name == name else each for each in right(module)]

        patch.setitem(RULES, layer, wrong)

    return plant
