"""Puts a function around the calls of single Flax modules."""

import functools
from collections.abc import Callable
from typing import Any

from flax import nnx

Around = Callable[..., Any]


def intercept(module: nnx.Module, around: Around) -> None:
    """Has ``around(call, *args, **kwargs)`` run in place of every call of ``module``, this instance alone.

    Python looks ``__call__`` up on the class, so the instance gets a class of its own; its attributes and with them its
    place in the NNX graph stay what they were. To be used on copies.
    """
    plain: Any = type(module)
    call = plain.__call__

    # With its signature: what a block is called with may decide how it is used.
    @functools.wraps(call)
    def intercepted(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        return around(functools.partial(call, self), *args, **kwargs)

    meta: Any = type(plain)
    module.__class__ = meta(plain.__name__, (plain,), {"__call__": intercepted, "__module__": plain.__module__})
