"""GELU as in PyTorch: exact by default, where ``nnx.gelu`` and ``jax.nn.gelu`` approximate it."""

import jax
from flax import nnx

from .._check import check_choice


class GELU(nnx.Module):
    """``x * P(X <= x)`` for a standard normal X (Hendrycks & Gimpel 2016).

    Equal to ``nnx.gelu(x, approximate=False)``, or with ``approximate="tanh"`` to ``nnx.gelu(x)``, as a module.

    Args:
        approximate: "none", or "tanh" for the approximation by a hyperbolic tangent.

    Raises:
        ValueError: If ``approximate`` is neither.

    Example:
        >>> [round(float(gelu(jax.numpy.array(1.0))), 4) for gelu in (GELU(), GELU("tanh"))]
        [0.8413, 0.8412]
    """

    def __init__(self, approximate: str = "none") -> None:
        check_choice("approximate", approximate, ("none", "tanh"))
        self.approximate = approximate

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the function to an array of any shape."""
        return nnx.gelu(x, approximate=self.approximate == "tanh")
