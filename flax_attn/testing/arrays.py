"""Recorded arrays, whose layouts are not known: whether one is another, or becomes it by a small change."""

from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np

from .errors import relative_error
from .tolerances import EXPLAINED, tolerance

MOST_AXES = 5  # up to this rank all orders of axes are tried

Function = Callable[[np.ndarray], np.ndarray]


def arrangements(left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
    """``left`` in every order of its axes that gives the shape of ``right``.

    Example:
        >>> [array.shape for array in arrangements(np.ones((2, 3, 3)), np.ones((3, 2, 3)))]
        [(3, 2, 3), (3, 2, 3)]
    """
    if left.ndim != right.ndim:
        return []
    orders = permutations(range(left.ndim)) if left.ndim <= MOST_AXES else [tuple(range(left.ndim))]
    return [turned for order in orders if (turned := left.transpose(order)).shape == right.shape]


def fits(hypothesis: np.ndarray, wanted: np.ndarray, instead: np.ndarray) -> bool:
    """Whether a hypothesis explains ``wanted``, from which what there is ``instead`` differs much more."""
    error = relative_error(instead, wanted)
    return bool(0 < error < np.inf and relative_error(hypothesis, wanted) <= EXPLAINED * error)


def fits_turned(hypothesis: np.ndarray | None, wanted: np.ndarray, instead: np.ndarray) -> bool:
    """The same for any order of axes, equal for the hypothesis and what there is ``instead``."""
    if hypothesis is None or hypothesis.shape != instead.shape:
        return False
    both = zip(arrangements(hypothesis, wanted), arrangements(instead, wanted), strict=True)
    return any(fits(mine, wanted, before) for mine, before in both)


def equal(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two arrays agree to float32's precision."""
    return relative_error(left, right) <= tolerance("output", "float32")


def activations() -> dict[str, Function]:
    """PyTorch's activations, as functions of arrays; NaN where one is not defined, as for complex numbers."""
    import torch
    from torch.nn import functional

    def of_arrays(function: Any) -> Function:
        def apply(array: np.ndarray) -> np.ndarray:
            if np.iscomplexobj(array):
                return np.full_like(array, np.nan)
            return np.asarray(function(torch.from_numpy(array.copy())))

        return apply

    named = {name: getattr(functional, name) for name in ("relu", "silu", "sigmoid", "tanh", "leaky_relu", "elu")}
    gelus = {"exact gelu": functional.gelu, "approximate gelu": partial(functional.gelu, approximate="tanh")}
    return {name: of_arrays(function) for name, function in (named | gelus).items()}
