"""The training loop: epochs of training, each followed by a test and a checkpoint."""

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .checkpoints import Checkpoints, Place, SaveError
from .config import Config
from .data import Source
from .data.feed import Fed, check_batch_size, open_feed
from .devices import Layout
from .runs import EpochMetrics, RunFolder
from .show import Bar, epoch_line
from .signals import Stop
from .step import Scores, adam, create_state, eval_step, learning_rate, train_step
from .tasks import task_of

if TYPE_CHECKING:
    from .events import Events  # tensorboardX


class NonFiniteError(ArithmeticError):
    """The loss or the state is infinite or NaN."""


class StoppedError(Exception):
    """The run was asked to stop, and has saved."""


@dataclasses.dataclass
class Tally:
    """Means over batches, weighted by their number of images."""

    images: int = 0
    errors: float = 0.0  # the sum of the images' errors
    right: float = 0.0  # how many were classified correctly

    def add(self, error: float, accuracy: float, images: int) -> None:
        """Adds the means over a batch of ``images``."""
        self.errors += error * images
        self.right += accuracy * images
        self.images += images

    @property
    def error(self) -> float:
        return self.errors / self.images if self.images else math.nan

    @property
    def accuracy(self) -> float:
        """The accuracy so far, NaN before the first batch."""
        return self.right / self.images if self.images else math.nan

    def __str__(self) -> str:
        return f"error {self.error:.4f} accuracy {self.accuracy:.3f}"


class Run:
    """A network in training, and its data; ``ValueError`` for options that do not fit the data.

    ``total_steps`` is the length of the learning rate's schedule, by default that of the run; ``network`` replaces the
    one that the task builds.
    """

    def __init__(
        self, config: Config, source: Source, *, total_steps: int | None = None, network: nnx.Module | None = None
    ) -> None:
        check_batch_size(config.batch_size, source.train, source.unit)
        if jax.process_count() > 1:
            raise ValueError(f"training takes one process, got {jax.process_count()} that JAX has joined")
        self.config, self.source = config, source
        self.task = task_of(config)
        self.steps = len(source.train) // config.batch_size  # per epoch
        self.place = Place()  # of the state in the run
        self.rate = learning_rate(config, config.epochs * self.steps if total_steps is None else total_steps)
        network = self.task.build(config, source) if network is None else network
        self.layout = Layout(config.batch_size)
        self.state = self.layout.copy(create_state(network, adam(self.rate)))
        self.feed = open_feed(source, config, self.layout)
        self.close = self.feed.close  # ends whatever reads ahead
        self.key = self.layout.copy(jax.random.key(config.seed))  # of what tasks draw at random

    def train_epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Fed, Scores]]:
        """Takes the training steps of an epoch, counted from 0, beginning with step ``first`` of it."""
        for fed in self.feed.train(epoch, first):
            self.state, scores = train_step(
                self.state, fed.inputs, fed.places, fed.indices, epoch, self.key, task=self.task, labels=fed.labels
            )
            yield fed, scores

    def test(self) -> Iterator[tuple[Fed, Scores]]:
        for fed in self.feed.test():
            real = self.layout.cut(fed.real)
            scores = eval_step(
                self.state, fed.inputs, fed.places, fed.indices, real, self.key, task=self.task, labels=fed.labels
            )
            yield fed, scores

    def at_rate(self, step: int) -> str:
        return f"at learning rate {float(self.rate(step)):.3g}"


@dataclasses.dataclass(frozen=True)
class Training:
    """A run with its logs, checkpoints and progress bar; ``stop`` says when to save and exit."""

    run: Run
    folder: RunFolder
    checkpoints: Checkpoints
    events: "Events | None"
    bar: Bar
    stop: Stop

    def fit(self) -> None:
        """Trains to the last epoch, unless it raises `NonFiniteError` or `StoppedError`."""
        run, epochs = self.run, self.run.config.epochs
        for epoch in range(run.place.epochs, epochs):
            train, speed = self._train(epoch)
            test = self._test(epoch)
            metrics = EpochMetrics(epoch + 1, train.error, train.accuracy, test.error, test.accuracy, speed)
            self.folder.add_epoch(metrics)
            if self.events is not None:
                self.events.add_epoch(metrics)
            self.bar.note(epoch_line(metrics, epochs, run.source.unit))
            run.place = Place(run.place.step, epoch + 1)
            self._save(test.error)

    def _train(self, epoch: int) -> tuple[Tally, float]:
        """Trains an epoch, or the rest of it, and returns its scores and the images per second."""
        run = self.run
        tally, first = Tally(*run.place.tally), run.place.step - epoch * run.steps
        if first == run.steps:  # stopped during the test
            return tally, run.place.speed
        began, timed = time.perf_counter(), run.steps - first
        for done, (fed, scores) in enumerate(run.train_epoch(epoch, first), first + 1):
            error = self._add(tally, scores, fed, epoch, "train")
            run.place = Place(run.place.step + 1, epoch, dataclasses.astuple(tally))
            self.folder.add_step(run.place.step, error)
            if self.events is not None:
                self.events.add_step(run.place.step, error)
            if done == first + 1 < run.steps:  # compiled by now
                began, timed = time.perf_counter(), run.steps - done
            due = run.config.save_steps and done % run.config.save_steps == 0
            if done < run.steps and (self.stop or due):  # else the test comes first
                self._save()
        speed = timed * run.config.batch_size / max(time.perf_counter() - began, 1e-9)
        run.place = dataclasses.replace(run.place, speed=speed)
        return tally, speed

    def _test(self, epoch: int) -> Tally:
        tally = Tally()
        for fed, scores in self.run.test():
            if self.stop:
                self._save()  # from before the test, which starts over
            self._add(tally, scores, fed, epoch, "test")
        return tally

    def _add(self, tally: Tally, scores: Scores, fed: Fed, epoch: int, part: str) -> float:
        """Adds a batch to the tally, shows how it goes, and returns the batch's error."""
        # Waits for the step: with some 30 of them under way XLA's CPU devices would deadlock.
        error, at, step = float(scores.error), f"epoch {epoch + 1}", self.run.place.step
        if not math.isfinite(error):
            where = f"{at}, step {step % self.run.steps + 1}" if part == "train" else f"the test after {at}"
            raise NonFiniteError(f"non-finite loss ({error}) in {where}, {self.run.at_rate(step)}")
        tally.add(error, float(scores.accuracy), int(fed.real.sum()))
        self.bar.advance(f"{at}/{self.run.config.epochs}", scores=f"{part} {tally}")
        return error

    def _save(self, test_error: float | None = None) -> None:
        """Saves, then exits if asked to; a failed save is reported and training continues."""
        run = self.run
        floats = [leaf for leaf in jax.tree.leaves(run.state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        if not all(np.isfinite(leaf).all() for leaf in floats):
            raise NonFiniteError(f"non-finite state after step {run.place.step}, {run.at_rate(run.place.step - 1)}")
        self.folder.sync()  # a checkpoint relies on the logs' lines
        try:
            self.checkpoints.save(run.state, run.place, test_error)
        except SaveError as error:
            self.bar.note(f"a checkpoint could not be written ({error}); {self.checkpoints.last_good()}")
        leave_if_asked(self.stop)


def leave_if_asked(stop: Stop) -> None:
    """Raises `StoppedError` where the run, which has saved, was asked to stop."""
    if stop:
        raise StoppedError
