"""Wraps the calls of single Flax modules."""

import functools
from collections.abc import Callable
from typing import Any

from flax import nnx

Around = Callable[..., Any]


def intercept(module: nnx.Module, around: Around) -> None:
    """Replaces every call of this instance of ``module`` by ``around(call, *args, **kwargs)``.

    Python looks ``__call__`` up on the class, so the instance gets a class of its own; its attributes, and so its place
    in the NNX graph, stay the same. Use it on copies.
    """
    plain: Any = type(module)
    call = plain.__call__

    # Keeps the signature, which decides how some networks call a block.
    @functools.wraps(call)
    def intercepted(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        return around(functools.partial(call, self), *args, **kwargs)

    meta: Any = type(plain)
    module.__class__ = meta(plain.__name__, (plain,), {"__call__": intercepted, "__module__": plain.__module__})
