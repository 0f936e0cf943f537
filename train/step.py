"""One step of training and one of evaluation, of any task: pure functions, each compiled once for a run.

The records are on the device as the source has them, all of them or those of a batch; a step gets the places of the
batch in them. Nothing global is read, and randomness comes from the key alone.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from .state import TrainState, network_of
from .task import TEST, TRAIN, split_key
from .tasks import Task


class Scores(NamedTuple):
    """What a batch came to.

    Attributes:
        error: the mean loss over the batch's records.
        accuracy: the share of them that is judged rightly.
    """

    error: jax.Array
    accuracy: jax.Array


@partial(jax.jit, static_argnames="task", donate_argnames="state")
def train_step(
    state: TrainState,
    inputs: jax.Array,
    places: jax.Array,
    indices: jax.Array,
    epoch: jax.Array,
    key: jax.Array,
    *,
    task: Task,
    labels: jax.Array | None = None,
) -> tuple[TrainState, Scores]:
    """Draws a batch, takes one optimizer step on it and scores it as it was before that step.

    Args:
        state: given up; its memory goes to the new one.
        inputs: (n, ...), records of the source, among them those of the batch.
        places: where those are, (b,).
        indices: their indices in the source, (b,), from which follows what is drawn for them.
        epoch: a scalar.
        key: of all that the run draws for its records.
        task: says what a batch is, and what its loss.
        labels: (b,), where the source has them.

    Returns:
        The new state and the scores.
    """
    batch = task.draw(inputs[places], labels, indices, split_key(key, TRAIN, epoch))

    def loss(params: nnx.State) -> tuple[jax.Array, tuple[nnx.State, jax.Array]]:
        network = nnx.merge(state.graph, params, state.rest, copy=True)
        answer = task.answer(network, batch.x)
        # BatchNorm's statistics and the random streams have moved on inside the call.
        return task.error(answer, batch.y), (nnx.state(network, nnx.Not(nnx.Param)), answer)

    (error, (rest, answer)), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, opt_state = state.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    scores = Scores(error, jnp.mean(task.is_right(answer, batch.y)))
    return TrainState(params, rest, opt_state, state.graph, state.optimizer), scores


@partial(jax.jit, static_argnames="task")
def eval_step(
    state: TrainState,
    inputs: jax.Array,
    places: jax.Array,
    indices: jax.Array,
    real: jax.Array,
    key: jax.Array,
    *,
    task: Task,
    labels: jax.Array | None = None,
) -> Scores:
    """Lets the network judge a batch of test records in eval mode.

    Args:
        state: the network's.
        inputs: (n, ...), records of the source, among them those of the batch.
        places: where those are, (b,).
        indices: their indices in the source, (b,), from which follows what is drawn for them.
        real: (b,), False for what only fills up the batch and is not scored.
        key: of all that the run draws for its records.
        task: says what a batch is, and what its loss.
        labels: (b,), where the source has them.
    """
    batch = task.draw(inputs[places], labels, indices, split_key(key, TEST, 0))
    network = network_of(state)
    network.eval()
    answer = task.answer(network, batch.x)
    return Scores(task.error(answer, batch.y, real), jnp.mean(task.is_right(answer, batch.y), where=real))
