"""All that changes while training, as one pytree; what does not change rides along as its static part."""

from dataclasses import dataclass, field
from typing import Any

import jax
import optax
from flax import nnx

from .config import Config

RISING = 0.2  # the part of a one-cycle run in which the learning rate goes up


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """A network and its optimizer.

    Attributes:
        params: the parameters.
        rest: the network's other variables: running statistics, and the counters of its random streams, from which
            dropout's masks follow: they depend on the seed and the number of steps taken.
        opt_state: the optimizer's.
        graph: the network without its variables.
        optimizer: the update rule.
    """

    params: nnx.State
    rest: nnx.State
    opt_state: Any
    graph: nnx.GraphDef[nnx.Module] = field(metadata={"static": True})
    optimizer: optax.GradientTransformation = field(metadata={"static": True})


def create_state(network: nnx.Module, optimizer: optax.GradientTransformation) -> TrainState:
    """Takes ``network`` apart; the state's arrays are its own."""
    graph, params, rest = nnx.split(nnx.clone(network), nnx.Param, ...)
    return TrainState(params, rest, optimizer.init(params), graph, optimizer)


def network_of(state: TrainState) -> nnx.Module:
    """Puts the network together again, on variables of its own, so that it may be used inside a transformation."""
    return nnx.merge(state.graph, state.params, state.rest, copy=True)


def learning_rate(config: Config, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, for a run of ``steps`` steps.

    Example:
        >>> rate = learning_rate(Config(learning_rate=1.0, schedule="one_cycle"), 100)
        >>> [round(float(rate(step)), 3) for step in (0, 20, 60, 99)]
        [0.04, 1.0, 0.5, 0.0]
    """
    if config.schedule == "constant":
        return optax.constant_schedule(config.learning_rate)
    return optax.cosine_onecycle_schedule(max(steps, 2), config.learning_rate, pct_start=RISING)
