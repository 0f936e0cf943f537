"""The run: epochs of training, each followed by a test."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import optax

import flax_attn

from .batches import eval_batches, train_batches
from .config import Config
from .data import Source
from .devices import Layout
from .metrics import EpochMetrics, Tally
from .networks import build_network
from .state import create_state, learning_rate, network_of
from .step import Judged, Scores, eval_step, train_step

Progress = Callable[[str, Tally], None]  # gets, after each batch, the split's name and its scores so far


class NonFiniteError(ArithmeticError):
    """The loss is no longer a number."""


class Run:
    """A network in training, and the images it sees.

    Args:
        config: the options; `train.config.check` has seen them.
        source: the images.

    Raises:
        ValueError: a batch larger than the training set.

    Attributes:
        state: changes with every step.
        steps: training steps per epoch.
        batches: of training and test per epoch.
        devices: how many devices share a batch.
        step_errors: the error of each training step so far.
    """

    def __init__(self, config: Config, source: Source) -> None:
        if config.batch_size > len(source.train):
            raise ValueError(
                f"--batch-size must be at most the number of training images, {len(source.train)}, "
                f"got {config.batch_size}"
            )
        self.config, self.source = config, source
        self.steps = len(source.train) // config.batch_size
        self.batches = self.steps + math.ceil(len(source.test) / config.batch_size)
        self.step_errors: list[float] = []
        self._judged: tuple[Judged, np.ndarray] | None = None
        self._rate = learning_rate(config, config.epochs * self.steps)
        network = build_network(config, *source.images.shape[1:3])
        self._layout = Layout(config.batch_size)
        self.devices = self._layout.devices
        self.state = self._layout.copy(create_state(network, optax.adam(self._rate)))
        self._images = self._layout.copy(source.images)
        self._key = self._layout.copy(jax.random.key(config.seed))

    @property
    def judged(self) -> Judged:
        """The last full batch of test images as the network judged it last, in numpy arrays."""
        if self._judged is None:
            raise RuntimeError("there is nothing to show before the first epoch")
        judged, real = self._judged
        return jax.tree.map(lambda array: np.asarray(array, np.float32)[real], judged)

    @property
    def parameters(self) -> int:
        """How many numbers the network learns."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    def epochs(self, progress: Progress) -> Iterator[EpochMetrics]:
        """Trains, and yields what each epoch came to.

        Raises:
            NonFiniteError: the loss is infinite or not a number.
        """
        for epoch in range(self.config.epochs):
            train, speed = self._train(epoch, progress)
            test = self._test(epoch, progress)
            yield EpochMetrics(epoch + 1, train.error, train.accuracy, test.error, test.accuracy, speed)

    def _train(self, epoch: int, progress: Progress) -> tuple[Tally, float]:
        config, tally = self.config, Tally()
        began, timed = time.perf_counter(), self.steps
        batches = train_batches(
            self.source.train, config.batch_size, shuffle=config.shuffle, seed=config.seed, epoch=epoch
        )
        for step, indices in enumerate(batches):
            self.state, scores = train_step(
                self.state, self._images, self._layout.cut(indices), epoch, self._key, rule=config.patches
            )
            error = self._read(scores, epoch, step, len(indices), tally)
            self.step_errors.append(error)
            progress("train", tally)
            if step == 0 and self.steps > 1:  # compiled by now
                began, timed = time.perf_counter(), self.steps - 1
        return tally, timed * config.batch_size / (time.perf_counter() - began)

    def _test(self, epoch: int, progress: Progress) -> Tally:
        tally, cut, self._judged = Tally(), self._layout.cut, None
        for indices, real in eval_batches(self.source.test, self.config.batch_size):
            scores, judged = eval_step(
                self.state, self._images, cut(indices), cut(real), self._key, rule=self.config.patches
            )
            self._read(scores, epoch, self.steps - 1, int(real.sum()), tally)
            progress("test", tally)
            if real.all() or self._judged is None:  # the last full batch is worth keeping
                self._judged = judged, real
        return tally

    def _read(self, scores: Scores, epoch: int, step: int, images: int, tally: Tally) -> float:
        # This waits for the step. With some 30 computations under way XLA's CPU devices block one another for good.
        error = float(scores.error)
        if not math.isfinite(error):
            rate = float(self._rate(epoch * self.steps + step))
            where = f"epoch {epoch + 1}, step {step + 1}"
            raise NonFiniteError(f"the loss is {error} in {where}, at learning rate {rate:.3g}")
        tally.add(error, float(scores.accuracy), images)
        return error

    def save(self, path: Path) -> None:
        """Writes the weights under PyTorch's names, as a ``.safetensors`` file."""
        flax_attn.to_torch(network_of(self.state), path)
