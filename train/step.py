"""One step of training and one of evaluation, of any task, with the state and the optimizer that they need.

Both are pure functions, each compiled once for a run. All randomness comes from the key.
"""

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from .data.feed import Fed
from .devices import Layout, lay
from .tasks import TEST, TRAIN, Task, split_key

FIRST, SECOND, EPS = 0.9, 0.999, 1e-8  # Adam's, as in PyTorch and optax
RISING = 0.2  # the fraction of a one-cycle run in which the learning rate goes up


@lru_cache  # a step is compiled for its optimizer, so equal ones should be the same
def adam(rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """`optax.adam` with the same state and settings, but with bias corrections exact to the dtype.

    Adam divides its running means by ``1 - b**t``. optax computes this as it stands: in float32 up to four of seven
    digits cancel, and for hundreds of steps every update is off by some 6e-6. ``-expm1(t log(b))`` has no cancellation.
    """
    means = optax.scale_by_adam(FIRST, SECOND, EPS)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _, state = means.update(gradients, state, params)
        first, second = (-jnp.expm1(state.count * math.log(decay)) for decay in (FIRST, SECOND))
        corrected = jax.tree.map(lambda m, v: m / first / (jnp.sqrt(v / second) + EPS), state.mu, state.nu)
        return corrected, state

    return optax.chain(optax.GradientTransformation(means.init, update), optax.scale_by_learning_rate(rate))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """A network, taken apart, and its optimizer."""

    params: Any
    rest: Any  # running statistics, and the random streams' counters, so dropout follows from seed and step
    opt_state: Any
    graph: nnx.GraphDef[nnx.Module] = field(metadata={"static": True})  # the network without its variables
    optimizer: optax.GradientTransformation = field(metadata={"static": True})
    layout: Layout | None = field(default=None, metadata={"static": True})  # of the pieces of a state that is in such

    @property
    def whole(self) -> Any:
        """The parameters, put together where they are in pieces; several processes do it together."""
        return self.params if self.layout is None else jax.jit(self.layout.whole)(self.params)


def create_state(network: nnx.Module, optimizer: optax.GradientTransformation) -> TrainState:
    """Takes a copy of ``network`` apart."""
    graph, *variables = nnx.split(network, nnx.Param, ...)
    params, rest = jax.device_put(variables, may_alias=False)  # as `train_step` reuses the memory of the state
    return TrainState(params, rest, optimizer.init(params), graph, optimizer)


def in_pieces(state: TrainState, layout: Layout) -> TrainState:
    """The state with a piece of the parameters and of the optimizer's on each device."""
    params, opt_state = jax.jit(layout.pieces)((state.params, state.opt_state))
    return replace(state, params=params, opt_state=opt_state, layout=layout)


def network_of(state: TrainState) -> nnx.Module:
    """The network of a state, with variables of its own, so that it may be used inside a transformation."""
    return nnx.merge(state.graph, state.whole, state.rest, copy=True)


@jax.jit
def is_finite(state: TrainState) -> jax.Array:
    """Whether all of a state is."""
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in floats]))


@lru_cache  # as `adam`
def learning_rate(schedule: str, rate: float, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, for a run of ``steps`` steps; ``rate`` is its maximum.

    Example:
        >>> rate = learning_rate("one_cycle", 1.0, 100)
        >>> [round(float(rate(step)), 3) for step in (0, 20, 60, 99)]
        [0.04, 1.0, 0.5, 0.0]
    """
    if schedule == "constant":
        return optax.constant_schedule(rate)
    if schedule == "cosine":
        return optax.cosine_decay_schedule(rate, max(steps, 1))
    return optax.cosine_onecycle_schedule(max(steps, 2), rate, pct_start=RISING)


class Scores(NamedTuple):
    """The mean loss and the accuracy on a batch, or of each of k batches, (k,)."""

    error: Any  # of JAX or of numpy
    accuracy: Any


@partial(jax.jit, static_argnames="task", donate_argnames="state")
def train_step(
    state: TrainState, fed: Fed, epoch: jax.Array | int, key: jax.Array, *, task: Task
) -> tuple[TrainState, Scores]:
    """Draws a batch and takes one optimizer step on it; returns the new state, and the scores before the step.

    Args:
        state: donated to the new one.
        fed: the records of the batch.
        epoch: counted from 0.
        key: of all that the run draws for its records.
        task: defines the batch and its loss.
    """
    x, y = task.draw(fed.records, fed.labels, fed.indices, split_key(key, TRAIN, epoch), training=True)
    x, whole = lay(x, "data", "tokens"), state.whole

    def loss(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        network = nnx.merge(state.graph, params, state.rest, copy=True)
        answer = task.answer(network, x)
        # The call has updated BatchNorm's statistics and the random streams.
        return task.loss(answer, y), (nnx.state(network, nnx.Not(nnx.Param)), answer)

    (error, (rest, answer)), gradients = jax.value_and_grad(loss, has_aux=True)(whole)
    if state.layout is not None:
        gradients = state.layout.pieces(gradients)
    updates, opt_state = state.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    scores = Scores(error, jnp.mean(task.is_right(answer, y)))
    pieces = lay if state.layout is None else state.layout.pieces
    params, opt_state = pieces((params, opt_state))
    return replace(state, params=params, rest=lay(rest), opt_state=opt_state), scores


@partial(jax.jit, static_argnames="task", donate_argnames="state")
def train_block(
    state: TrainState, fed: Fed, first: int, last: int, epoch: int, key: jax.Array, *, task: Task
) -> tuple[TrainState, Scores]:
    """Takes the steps from ``first`` up to ``last`` of an epoch; one program for blocks of any length.

    Arguments are `train_step`'s, but ``fed`` holds all k batches of the epoch, as columns (b, k). The scores are (k,),
    zero for steps that the block does not take.
    """

    def take_step(step: jax.Array, carry: tuple[TrainState, Scores]) -> tuple[TrainState, Scores]:
        places, indices, labels = jax.tree.map(lambda leaf: leaf[:, step], (fed.places, fed.indices, fed.labels))
        batch = Fed(fed.inputs, places, indices, fed.real, labels)
        state, scores = train_step(carry[0], batch, epoch, key, task=task)
        return state, jax.tree.map(lambda all_, one: all_.at[step].set(one.astype(all_.dtype)), carry[1], scores)

    nothing = jnp.zeros(fed.indices.shape[1])
    taken: tuple[TrainState, Scores] = jax.lax.fori_loop(first, last, take_step, (state, Scores(nothing, nothing)))
    return taken


@partial(jax.jit, static_argnames="task")
def eval_step(state: TrainState, fed: Fed, key: jax.Array, *, task: Task) -> Scores:
    """Scores the real records of a test batch in eval mode; arguments as `train_step`'s."""
    x, y = task.draw(fed.records, fed.labels, fed.indices, split_key(key, TEST, 0), training=False)
    network = network_of(state)
    network.eval()
    answer = task.answer(network, lay(x, "data", "tokens"))
    real = jnp.asarray(fed.real)
    return Scores(task.error(answer, y, real), jnp.mean(task.is_right(answer, y), where=real))
