"""The training loop: epochs of training, each followed by a test and a checkpoint."""

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx

from .checkpoints import Checkpoints, Place, SaveError
from .config import Config
from .data import Source
from .data.feed import Fed, check_batch_size, open_feed
from .devices import Layout, run_devices
from .hosts import is_first, largest, within
from .runs import EpochMetrics, RunFolder
from .show import Bar, epoch_line, say
from .signals import Stop
from .step import (
    Scores,
    adam,
    create_state,
    eval_step,
    in_pieces,
    is_finite,
    learning_rate,
    train_block,
    train_step,
)
from .tasks import task_of

if TYPE_CHECKING:
    from .events import Events  # tensorboardX

BLOCK = 1.0  # seconds of training steps between looks at whether to stop
IN_FLIGHT = 3  # steps that are under way at once: with some 30, XLA's CPU devices would deadlock


class NonFiniteError(ArithmeticError):
    """The loss or the state is infinite or NaN."""


class StoppedError(Exception):
    """The run was asked to stop, and has saved."""


@dataclasses.dataclass
class Tally:
    """Means over batches, weighted by their number of images, and the speed."""

    images: int = 0
    errors: float = 0.0  # the sum of the images' errors
    right: float = 0.0  # how many were classified correctly
    timed: int = 0  # how many of the images took these
    seconds: float = 0.0

    def add(self, error: float, accuracy: float, images: int) -> None:
        """Adds the means over a batch of ``images``."""
        self.errors += error * images
        self.right += accuracy * images
        self.images += images

    @property
    def means(self) -> tuple[float, float]:
        """The error and the accuracy."""
        return self.errors / self.images, self.right / self.images


class Run:
    """A network in training, and its data; ``ValueError`` for options that do not fit the data.

    ``total_steps`` is the length of the learning rate's schedule, by default that of the run; ``network`` replaces the
    one that the task builds.
    """

    def __init__(
        self, config: Config, source: Source, *, total_steps: int | None = None, network: nnx.Module | None = None
    ) -> None:
        check_batch_size(config.batch_size, source.train, source.unit)
        self.config, self.source = config, source
        self.task = task_of(config)
        self.steps = len(source.train) // config.batch_size  # per epoch
        self.place = Place()  # of the state in the run
        self.rate = learning_rate(config.schedule, config.learning_rate, total_steps or config.epochs * self.steps)
        network = self.task.build(config, source) if network is None else network
        if (rows := len(source.records[0])) % config.token_devices:
            raise ValueError(f"--token-devices must divide the {rows} rows of an image, got {config.token_devices}")
        devices = run_devices(config.batch_size, config.devices, config.token_devices)
        self.layout = Layout(config.batch_size, devices, config.token_devices)
        self.state = self.layout.copy(create_state(network, adam(self.rate)))
        if config.sharding == "full":
            self.state = in_pieces(self.state, self.layout)
        self.feed = open_feed(source, config, self.layout)
        self.close = self.feed.close  # ends whatever reads ahead
        # On CPUs, XLA computes the input's gradient of a convolution some 90 times slower inside a loop:
        # https://github.com/jax-ml/jax/issues/12868
        self.one_program = not self.feed.streamed and jax.default_backend() != "cpu"
        self.step_seconds = math.inf  # that a training step took last
        self.key = self.layout.copy(jax.random.key(config.seed))  # of what tasks draw at random

    @property
    def network(self) -> Any:
        """A copy of the network as it is now, on one device; several processes make theirs together."""
        # XLA cuts running statistics along with the parameters.
        variables = jax.jit(self.layout.whole)((self.state.params, self.state.rest))
        return nnx.merge(self.state.graph, *jax.tree.map(lambda leaf: leaf.addressable_data(0), variables))

    def save(self, checkpoints: Checkpoints) -> None:
        checkpoints.save(self.state, self.place)

    def train_epoch(self, epoch: int, first: int = 0, seconds: float = 0.0) -> Iterator[Scores]:
        """Takes the training steps of an epoch, counted from 0, beginning with step ``first`` of it.

        Yields the scores of blocks of steps, arrays of numpy (k,), and waits for nothing within one. A block ends where
        a checkpoint is due, and is as long as fits into ``seconds`` by the time of the last one; at least one step.
        """
        every = self.config.save_steps or self.steps
        while first < self.steps:
            began, most = time.perf_counter(), max(1, int(seconds / self.step_seconds))
            last = min(first + most, (first // every + 1) * every, self.steps)
            waits = f"hear from the others or its devices by batch {last} of epoch {epoch + 1}"
            # Longer than to read a batch, so that of two processes the one that hangs is the first to say so.
            with jax.set_mesh(self.layout.mesh), within(waits, self.step_seconds + BLOCK):
                scores = self._take_steps(epoch, first, last)
            self.step_seconds = largest((time.perf_counter() - began) / (last - first))
            yield scores
            first = last

    def _take_steps(self, epoch: int, first: int, last: int) -> Scores:
        if self.one_program:
            whole = self.feed.train_whole(epoch)
            self.state, scores = train_block(self.state, whole, first, last, epoch, self.key, task=self.task)
            return Scores(*(np.asarray(each)[first:last] for each in scores))
        taken: list[Scores] = []
        for fed in self._read(self.feed.train(epoch, first, last), f"epoch {epoch + 1}", first):
            self.state, scores = train_step(self.state, fed, epoch, self.key, task=self.task)
            taken.append(scores)
            if len(taken) >= IN_FLIGHT:
                jax.block_until_ready(taken[-IN_FLIGHT])
        return Scores(*map(np.array, zip(*taken, strict=True)))

    def _read(self, batches: Iterator[Fed], of: str, before: int = 0) -> Iterator[Fed]:
        for number in itertools.count(before + 1):
            with within(f"read batch {number} of {of}", self.step_seconds):
                if (fed := next(batches, None)) is None:
                    return
            yield fed

    def test(self) -> Iterator[tuple[Fed, Scores]]:
        for fed in self._read(self.feed.test(), "the test"):
            with jax.set_mesh(self.layout.mesh):
                scores = eval_step(self.state, fed._replace(real=self.layout.cut(fed.real)), self.key, task=self.task)
            yield fed, jax.block_until_ready(scores)  # before processes ask one another something else


def fit(
    run: Run, folder: RunFolder, checkpoints: Checkpoints, bar: Bar, stop: Stop, events: "Events | None" = None
) -> None:
    """Trains from ``run.place`` to the last epoch.

    Raises `NonFiniteError`; or `StoppedError`, as soon as ``stop`` has asked for it and a checkpoint is saved.
    """
    config = run.config
    logs = [log for log in (folder, events) if log is not None and is_first()]
    compiling = True  # in the first block

    def save() -> None:
        if not is_finite(run.state):
            raise NonFiniteError(f"non-finite state after step {run.place.step}")
        if is_first():
            folder.sync()  # a checkpoint relies on the logs' lines
        try:
            run.save(checkpoints)
        except SaveError as error:
            say(bar.console, f"a checkpoint could not be written ({error}); {checkpoints.last_good()}")
        if stop:
            raise StoppedError

    for epoch in range(run.place.epochs, config.epochs):
        name, end = f"epoch {epoch + 1}", (epoch + 1) * run.steps
        train, test, begin, step = Tally(*run.place.tally), Tally(), epoch * run.steps, run.place.step
        began = time.perf_counter()
        for scores in run.train_epoch(epoch, step - begin, BLOCK):
            for error, accuracy in zip(scores.error.tolist(), scores.accuracy.tolist(), strict=True):
                step += 1
                if not math.isfinite(error):
                    raise NonFiniteError(f"non-finite loss ({error}) in {name}, step {step - begin}")
                train.add(error, accuracy, config.batch_size)
                for log in logs:
                    log.add_step(step, error)
            now, taken = time.perf_counter(), step - run.place.step
            if not compiling or (step == end and not train.timed):
                train.timed += taken * config.batch_size
                train.seconds += now - began
            began, compiling = now, False
            run.place = Place(step, epoch, dataclasses.astuple(train))
            bar.count(f"{name}/{config.epochs}", scores=f"train error {train.means[0]:.4f}", done=taken)
            due = config.save_steps and (step - begin) % config.save_steps == 0
            if step < end and (stop.heed() or due):  # else the test comes first
                save()
        for fed, scores in run.test():
            if stop.heed():  # saves the state before the test, which starts over
                save()
            test.add(float(scores.error), float(scores.accuracy), int(fed.real.sum()))
            bar.count(f"{name}/{config.epochs}", scores=f"test error {test.means[0]:.4f}")
        if not math.isfinite(test.errors):
            raise NonFiniteError(f"non-finite loss ({test.errors}) in the test after {name}")
        metrics = EpochMetrics(epoch + 1, *train.means, *test.means, train.timed / max(train.seconds, 1e-9))
        for log in logs:
            log.add_epoch(metrics)
        say(bar.console, epoch_line(metrics, config.epochs, run.source.unit))
        run.place = Place(end, epoch + 1)
        save()
