"""What both sides get: weights, batches in their order, learning rates."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from flax_attn.testing.flax_side import cast

from ..data import Source
from ..data.feed import Fed, ResidentFeed
from ..devices import Layout
from ..networks import build_network
from ..step import learning_rate
from ..tasks.patch import TRAIN, draw_fed
from .options import Options

PRECISION = "highest"  # of matrix products; off the CPU the default would round what it multiplies

# Gets the name of a run after each of its steps.
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Trajectory:
    """A training run from its first step to its last.

    Attributes:
        losses: (steps,), of each batch before its step.
        seconds: (steps,), what each step took.
        state_dict: the network at the end, under PyTorch's names.
    """

    losses: np.ndarray
    seconds: np.ndarray
    state_dict: dict[str, np.ndarray]

    @property
    def step_time(self) -> float:
        """The median over the steps; the first compiles, and is left out where there are others."""
        return float(np.median(self.seconds[1:] if len(self.seconds) > 1 else self.seconds))


@contextmanager
def settings(options: Options) -> Iterator[None]:
    """What JAX has to be told for these options."""
    with jax.enable_x64(options.dtype == "float64"), jax.default_matmul_precision(PRECISION):
        yield


class Problem:
    """A training run without the one who trains; to be made and used within `settings`.

    Attributes:
        options: the options.
        network: ours at its start, which no run changes.
        size: height and width of the images.
        layout: the devices of our side.
        rate: the learning rate as a function of the step.
        rates: (steps,), its values.
        key: of the patches.
    """

    def __init__(self, options: Options, source: Source) -> None:
        config = options.config
        self.options, self.size = options, source.shape
        with jax.enable_x64(False):  # the weights of a training run, also where they are then float64
            network = build_network(config, *self.size)
        self.network = cast(network, options.dtype)
        self.network.train()
        self.layout = Layout(config.batch_size)
        self.rate = learning_rate(config, options.steps)
        self.rates = np.asarray(jax.vmap(self.rate)(jnp.arange(options.steps, dtype=jnp.int32)), np.float64)
        self.key = self.layout.copy(jax.random.key(config.seed))
        self._feed = ResidentFeed(source, config, self.layout)

    def batches(self) -> Iterator[tuple[int, Fed]]:
        """Yields the epoch and the batch of every step, as the training loop does."""
        epochs = ((epoch, fed) for epoch in itertools.count() for fed in self._feed.train(epoch, 0))
        return itertools.islice(epochs, self.options.steps)

    def painted(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields, for every step, x (b, h, w, 3) and y (b,) as the training step sees them."""
        for epoch, fed in self.batches():
            batch = draw_fed(
                fed.inputs, fed.places, fed.indices, epoch, self.key, split=TRAIN, rule=self.options.patches
            )
            yield np.asarray(batch.x), np.asarray(batch.y)
