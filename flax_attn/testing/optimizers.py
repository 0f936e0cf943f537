"""Optimizers with the same update rule and settings in optax and PyTorch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OptimizerPair:
    """One optimizer on both sides.

    Attributes:
        flax: an ``optax.GradientTransformation``.
        torch: takes the parameters and returns a ``torch.optim.Optimizer``.
    """

    flax: Any
    torch: Callable[[Any], Any]


def known_optimizers() -> dict[str, OptimizerPair]:
    """Stochastic gradient descent with momentum, Adam, and AdamW with weight decay, at PyTorch's default rates.

    At much higher rates training becomes chaotic, and two float64 runs diverge as float32 runs do.

    Example:
        >>> list(known_optimizers())
        ['sgd', 'adam', 'adamw']
    """
    import optax
    import torch
    from optax.contrib import split_real_and_imaginary  # of complex parameters Adam scales the two apart, as in PyTorch

    return {
        "sgd": OptimizerPair(
            optax.sgd(1e-3, momentum=0.9), lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
        ),
        "adam": OptimizerPair(
            split_real_and_imaginary(optax.adam(1e-3)), lambda parameters: torch.optim.Adam(parameters, lr=1e-3)
        ),
        # optax's default weight decay is 1e-4, PyTorch's 1e-2.
        "adamw": OptimizerPair(
            split_real_and_imaginary(optax.adamw(1e-3, weight_decay=1e-2)),
            lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2),
        ),
    }


def choose(optimizers: Mapping[str, OptimizerPair] | Any) -> dict[str, OptimizerPair]:
    """The pairs by name: known ones for a sequence of names; a mapping is returned unchanged.

    Raises:
        ValueError: an unknown name, or a mapping to something else.
    """
    if not optimizers:
        raise ValueError("optimizers must be at least one, got none")
    if isinstance(optimizers, Mapping):
        wrong = [name for name, pair in optimizers.items() if not isinstance(pair, OptimizerPair)]
        if wrong:
            raise ValueError(
                f"optimizers must map names to OptimizerPair, got {optimizers[wrong[0]]!r} for {wrong[0]!r}"
            )
        return dict(optimizers)
    known = known_optimizers()
    if isinstance(optimizers, str) or any(name not in known for name in optimizers):
        raise ValueError(f"optimizers must be a sequence of {', '.join(map(repr, known))}, got {optimizers!r}")
    return {name: known[name] for name in optimizers}
