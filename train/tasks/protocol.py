"""What training needs from a task."""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol

import jax
from flax import nnx

Progress = Callable[[int, int], None]  # files read, and files in all


class Batch(NamedTuple):
    """What a network gets, x (b, ...) in float32, and the truth about it, y (b,)."""

    x: jax.Array
    y: jax.Array


class Task(Hashable, Protocol):
    """A task; steps are compiled for it, so tasks that compute the same must be equal."""

    def open(self, data: str, progress: Progress | None = None) -> Any:
        """Opens what ``--data`` names: a `train.data.Source`, or what has its attributes."""

    def build(self, config: Any, source: Any) -> nnx.Module:
        """The network for these data, in training mode; raises ``ValueError`` for options that do not fit them."""

    def draw(self, inputs: jax.Array, labels: Any, indices: jax.Array, key: jax.Array) -> Batch:
        """Makes a batch, inside the compiled step like all that follows.

        Args:
            inputs: (b, ...), the batch's records as the source has them.
            labels: (b,), theirs, or None where the source has none.
            indices: (b,), of these records in the source.
            key: of the split and the epoch, for what is drawn at random.
        """

    def answer(self, network: Any, x: jax.Array) -> jax.Array:
        """The network's output for x, (b,) or (b, classes)."""

    def error(self, answer: jax.Array, y: jax.Array, where: jax.Array | None = None) -> jax.Array:
        """The mean loss over the records, or those of them for which ``where`` (b,) is True."""

    def is_right(self, answer: jax.Array, y: jax.Array) -> jax.Array:
        """Which records are classified correctly, (b,)."""
