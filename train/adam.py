"""Adam with bias corrections that are as exact as the dtype.

Adam divides its running means by ``1 - b**t``. optax computes this as it stands: with b = 0.999 in float32 up to four
of seven digits cancel, and for hundreds of steps every update is off by some 6e-6, a hundred times the rounding of its
parts. PyTorch computes it in float64. ``-expm1(t log(b))`` cancels nothing.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

FIRST, SECOND, EPS = 0.9, 0.999, 1e-8  # PyTorch's defaults, and optax's


def adam(rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """`optax.adam` with the same state and settings, and the corrections of this module.

    Args:
        rate: the learning rate, or a function from the step to it.
    """
    return optax.chain(_scale_by_adam(), optax.scale_by_learning_rate(rate))


def _scale_by_adam() -> optax.GradientTransformation:
    means = optax.scale_by_adam(FIRST, SECOND, EPS)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _, state = means.update(gradients, state, params)
        first, second = (-jnp.expm1(state.count * math.log(decay)) for decay in (FIRST, SECOND))
        corrected = jax.tree.map(lambda m, v: m / first / (jnp.sqrt(v / second) + EPS), state.mu, state.nu)
        return corrected, state

    return optax.GradientTransformation(means.init, update)
