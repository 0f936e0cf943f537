"""One step of training and one of evaluation: pure functions, each compiled once for a run.

Images are on the device as uint8, all of a source or those of a batch; a step gets the places of the batch in them.
Nothing global is read, and randomness comes from the key alone.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from .state import TrainState, network_of
from .task import TEST, TRAIN, article_patches, paint, per_image_patches, split_key

TINY = 1e-8  # keeps the logarithms of the loss finite


class Scores(NamedTuple):
    """What a batch came to.

    Attributes:
        error: the mean loss over the batch's images.
        accuracy: the share of them that is judged rightly.
    """

    error: jax.Array
    accuracy: jax.Array


class Batch(NamedTuple):
    """Images with patches: x (b, h, w, 3) in float32, and y (b,), 1 where there is a patch, else 0."""

    x: jax.Array
    y: jax.Array


@partial(jax.jit, static_argnames="rule", donate_argnames="state")
def train_step(
    state: TrainState,
    images: jax.Array,
    places: jax.Array,
    indices: jax.Array,
    epoch: jax.Array,
    key: jax.Array,
    *,
    rule: str,
) -> tuple[TrainState, Scores]:
    """Draws a batch, takes one optimizer step on it and scores it as it was before that step.

    Args:
        state: given up; its memory goes to the new one.
        images: uint8 (n, h, w, 3), among them those of the batch.
        places: where those are, (b,).
        indices: their indices in the source, (b,), from which their patches follow.
        epoch: a scalar.
        key: of the run's patches.
        rule: of the patches, "per_image" or "article".

    Returns:
        The new state and the scores.
    """
    batch = draw_batch(images[places], indices, split_key(key, TRAIN, epoch), rule)

    def loss(params: nnx.State) -> tuple[jax.Array, tuple[nnx.State, jax.Array]]:
        network = nnx.merge(state.graph, params, state.rest, copy=True)
        p, _ = network(batch.x)
        # BatchNorm's statistics and the random streams have moved on inside the call.
        return mean_error(p, batch.y), (nnx.state(network, nnx.Not(nnx.Param)), p)

    (error, (rest, p)), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, opt_state = state.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    scores = Scores(error, jnp.mean(is_right(p, batch.y)))
    return TrainState(params, rest, opt_state, state.graph, state.optimizer), scores


@partial(jax.jit, static_argnames="rule")
def eval_step(
    state: TrainState,
    images: jax.Array,
    places: jax.Array,
    indices: jax.Array,
    real: jax.Array,
    key: jax.Array,
    *,
    rule: str,
) -> Scores:
    """Lets the network judge a batch of test images in eval mode.

    Args:
        state: the network's.
        images: uint8 (n, h, w, 3), among them those of the batch.
        places: where those are, (b,).
        indices: their indices in the source, (b,), from which their patches follow.
        real: (b,), False for what only fills up the batch and is not scored.
        key: of the run's patches.
        rule: of the patches, "per_image" or "article".
    """
    batch = draw_batch(images[places], indices, split_key(key, TEST, 0), rule)
    network = network_of(state)
    network.eval()
    p, _ = network(batch.x)
    return Scores(mean_error(p, batch.y, real), jnp.mean(is_right(p, batch.y), where=real))


def draw_batch(images: jax.Array, indices: jax.Array, key: jax.Array, rule: str) -> Batch:
    """Paints the patches of one of the rules on images, uint8 (b, h, w, 3)."""
    batch_size, height, width, _ = images.shape
    if rule == "article":
        patches = article_patches(batch_size, height, width)
    else:
        patches = per_image_patches(key, indices, height, width)
    return Batch(paint(images, patches), patches.label.astype(jnp.float32))


def mean_error(p: jax.Array, y: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """The tutorial's binary cross-entropy, ``-mean(y log(p + 1e-8) + (1 - y) log(1 - p + 1e-8))``.

    In float32 for narrower probabilities, in float64 for those.

    Args:
        p: (b,), the probability of a patch.
        y: (b,), 1 where there is one, else 0.
        where: (b,), which images count.

    Example:
        >>> float(mean_error(jnp.array([1.0, 0.5]), jnp.array([1.0, 0.0]))).__round__(4)
        0.3466
    """
    p = p.astype(jnp.promote_types(p.dtype, jnp.float32))
    # One logarithm, of the probability given to the truth: as y is 0 or 1 the other has no weight. XLA turns
    # 1 - p + 1e-8 into (1 + 1e-8) - p, which is 0 for p = 1 in float32, and then 0 * log(0) is NaN.
    truth = jnp.where(y == 1, p, 1 - p)
    return -jnp.mean(jnp.log(truth + TINY), where=where)


def is_right(p: jax.Array, y: jax.Array) -> jax.Array:
    """Whether the prediction, p rounded, is the label."""
    return jnp.round(p) == y
