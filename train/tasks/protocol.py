"""What the run asks of a task, and gets from it."""

from collections.abc import Hashable
from typing import Any, NamedTuple, Protocol

import jax
from flax import nnx

from ..config import Config
from ..data.folder import Progress


class Batch(NamedTuple):
    """What a network gets, x (b, ...) in float32, and what is true of it, y (b,)."""

    x: jax.Array
    y: jax.Array


class Task(Hashable, Protocol):
    """A task. It is hashable, and equal to another one that computes the same: steps are compiled for it.

    `draw`, `answer`, `error` and `is_right` are called inside compiled functions.
    """

    def open(self, data: str, progress: Progress | None = None) -> Any:
        """Opens what ``--data`` names, a `train.data.Source` or what has its attributes.

        Args:
            data: kind, colon and path.
            progress: told how far a look through many files has come: files done, and files in all.

        Raises:
            ValueError: an unknown kind, or data that cannot be used.
            FileNotFoundError: no such file or folder.
        """

    def build(self, config: Config, source: Any) -> nnx.Module:
        """The network for these data, in training mode.

        Raises:
            ValueError: options and data that make no network.
        """

    def draw(self, inputs: jax.Array, labels: Any, indices: jax.Array, key: jax.Array) -> Batch:
        """Makes a batch.

        Args:
            inputs: (b, ...), the batch's records as the source has them.
            labels: (b,), theirs, or None where the source has none.
            indices: (b,), of these records in the source.
            key: of the split and the epoch, for what is drawn at random.
        """

    def answer(self, network: Any, x: jax.Array) -> jax.Array:
        """What ``network`` says of x, (b,) or (b, classes)."""

    def error(self, answer: jax.Array, y: jax.Array, where: jax.Array | None = None) -> jax.Array:
        """The mean loss over the records, of those only that ``where`` (b,) names."""

    def is_right(self, answer: jax.Array, y: jax.Array) -> jax.Array:
        """Which records are judged rightly, (b,)."""
