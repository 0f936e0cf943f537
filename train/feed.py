"""Where a run's batches come from: images that lie on the device whole, or a stream of them."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import jax
import numpy as np

from .batches import eval_batches, train_batches
from .config import Config
from .data import Source
from .devices import Layout


class Fed(NamedTuple):
    """A batch before its patches are painted, on the device.

    Attributes:
        images: uint8 (n, h, w, 3).
        places: (b,), where in ``images`` those of the batch lie.
        indices: (b,), of the batch's images in their source.
        real: (b,), False for what only fills up the batch.
    """

    images: jax.Array
    places: jax.Array
    indices: jax.Array
    real: np.ndarray


class Feed(Protocol):
    """The batches of a run; those of a training epoch start anywhere, the same as if they had started at 0."""

    def train(self, epoch: int, first: int) -> Iterator[Fed]:
        """The training batches of an epoch from number ``first`` on."""

    def test(self) -> Iterator[Fed]:
        """The test batches, in file order."""


class ResidentFeed:
    """All images on the device, once; a batch is a list of their indices."""

    def __init__(self, source: Source, config: Config, layout: Layout) -> None:
        self._source, self._config, self._layout = source, config, layout
        self._images = layout.copy(source.images)

    def train(self, epoch: int, first: int) -> Iterator[Fed]:
        """The training batches of an epoch from number ``first`` on."""
        config = self._config
        batches = train_batches(
            self._source.train, config.batch_size, shuffle=config.shuffle, seed=config.seed, epoch=epoch
        )
        for number, indices in enumerate(batches):
            if number >= first:
                yield self._fed(indices, np.ones(len(indices), np.bool_))

    def test(self) -> Iterator[Fed]:
        """The test batches, in file order."""
        for indices, real in eval_batches(self._source.test, self._config.batch_size):
            yield self._fed(indices, real)

    def _fed(self, indices: np.ndarray, real: np.ndarray) -> Fed:
        cut = self._layout.cut(indices)
        return Fed(self._images, cut, cut, real)
