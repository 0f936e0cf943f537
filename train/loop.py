"""The run: epochs of training, each followed by a test and a checkpoint."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import flax_attn

from .checkpoints import Checkpoints, Place, SaveError, steps_in
from .config import Config
from .data import Source
from .data.batches import check_batch_size
from .data.feed import Fed, open_feed
from .devices import Layout
from .metrics import EpochMetrics, Tally
from .step import Scores, TrainState, adam, create_state, eval_step, learning_rate, network_of, train_step
from .tasks import task_of

# Gets, after each batch, the split's name, its scores so far and the error of the batch.
Progress = Callable[[str, Tally, float], None]

LONGER = 0.05  # the part by which a stream may make steps longer without a word
ALONE = 16  # steps that are timed without it


class NonFiniteError(ArithmeticError):
    """The loss, or a number of the state, is infinite or none."""


class StoppedError(Exception):
    """The run was asked to stop, and has saved."""


class Run:
    """A network in training, and the records it sees.

    Args:
        config: the options; `train.config.check` has seen them.
        source: the records.
        checkpoints: where the run saves; None for a run that does not.

    Raises:
        ValueError: a batch larger than the training set, or several processes.

    Attributes:
        task: what is trained for.
        state: changes with every step.
        place: where in the run that is.
        steps: training steps per epoch.
        batches: of training and test per epoch.
        devices: how many devices share a batch.
        stop: whether the run shall save and leave after the step at hand.
        before_save: called before each checkpoint; what it has to count on is on the disk then.
        warn: gets a line where a checkpoint could not be written; the run goes on.
    """

    def __init__(self, config: Config, source: Source, checkpoints: Checkpoints | None = None) -> None:
        check_batch_size(config.batch_size, source.train, source.unit)
        if jax.process_count() > 1:
            raise ValueError(f"training takes one process, got {jax.process_count()} that JAX has joined")
        self.config, self.source, self.checkpoints = config, source, checkpoints
        self.task = task_of(config)
        self.steps = len(source.train) // config.batch_size
        self.batches = self.steps + math.ceil(len(source.test) / config.batch_size)
        self.place = Place()
        self.stop: Callable[[], bool] = lambda: False
        self.before_save: Callable[[], None] = lambda: None
        self.warn: Callable[[str], None] = lambda _: None
        self._rate = learning_rate(config, config.epochs * self.steps)
        network = self.task.build(config, source)
        layout = Layout(config.batch_size)
        self.devices = layout.devices
        self.state = layout.copy(create_state(network, adam(self._rate)))
        self._cut, self._feed = layout.cut, open_feed(source, config, layout)
        self._key = layout.copy(jax.random.key(config.seed))

    @property
    def parameters(self) -> int:
        """How many numbers the network learns."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    def restore(self, step: int) -> None:
        """Goes to where the run was when it made a checkpoint.

        Raises:
            DamagedError: the checkpoint is not what was written.
        """
        self.state, self.place = self.checkpoints.restore(step, self.state)

    def epochs(self, progress: Progress) -> Iterator[EpochMetrics]:
        """Trains, and yields what each epoch came to; the caller has written that down when the next one is asked for.

        Raises:
            NonFiniteError: the loss, or a parameter, is infinite or not a number.
            StoppedError: the run was asked to stop, and has saved if it could.
        """
        for epoch in range(self.place.epochs, self.config.epochs):
            train, speed = self._train(epoch, progress)
            test = self._test(progress)
            yield EpochMetrics(epoch + 1, train.error, train.accuracy, test.error, test.accuracy, speed)
            self.place = Place(self.place.step, epoch + 1)
            self._save(test.error)
            self.leave_if_asked()
        self._wait()

    def _train(self, epoch: int, progress: Progress) -> tuple[Tally, float]:
        tally, feed = Tally(*self.place.tally), self._feed
        first = self.place.step - epoch * self.steps
        if first == self.steps:  # stopped before the test was over
            return tally, self.place.speed
        began, timed, waited, stepped = time.perf_counter(), self.steps - first, feed.waited, 0.0
        for fed in feed.train(epoch, first):
            step_began = time.perf_counter()
            self.state, scores = self._step(self.state, fed, epoch)
            error = self._read(
                scores, fed, tally, f"epoch {epoch + 1}, step {self.place.step - epoch * self.steps + 1}"
            )
            stepped += time.perf_counter() - step_began
            self.place = Place(self.place.step + 1, epoch, tally.state)
            progress("train", tally, error)
            done = self.place.step - epoch * self.steps
            if done == first + 1 and done < self.steps:  # compiled by now
                began, timed, waited, stepped = time.perf_counter(), self.steps - done, feed.waited, 0.0
            if done < self.steps:  # else the test comes first
                self._save_between(done)
        seconds = max(time.perf_counter() - began, 1e-9)
        if feed.streams and timed >= ALONE:
            self._warn_of_stream(stepped / timed, (feed.waited - waited) / timed, self._alone(fed, epoch))
        self.place = dataclasses.replace(self.place, speed=timed * self.config.batch_size / seconds)
        return tally, self.place.speed

    def _step(self, state: TrainState, fed: Fed, epoch: int) -> tuple[TrainState, Scores]:
        return train_step(
            state, fed.inputs, fed.places, fed.indices, epoch, self._key, task=self.task, labels=fed.labels
        )

    def _alone(self, fed: Fed, epoch: int) -> float:
        """Seconds for a step on a batch that is there, while nothing is read ahead; the run stays where it is."""
        state = jax.tree.map(lambda leaf: leaf.copy(), self.state)
        began = time.perf_counter()
        for _ in range(ALONE):
            state, scores = self._step(state, fed, epoch)
            float(scores.error)
        return (time.perf_counter() - began) / ALONE

    def _warn_of_stream(self, stepped: float, waited: float, alone: float) -> None:
        """Says by how much the stream made steps longer, all in seconds per step; decoding takes processors, too."""
        longer = (stepped + waited) / alone - 1
        if longer <= LONGER:
            return
        decoded = not isinstance(self.source.records, np.ndarray)
        self.warn(
            f"steps took {longer:.0%} longer than on {self.source.unit} that are there already: "
            f"{1e3 * (stepped + waited):.3g} ms for {1e3 * alone:.3g}, {1e3 * waited:.3g} of them waiting for "
            f"{self.source.unit} to {'be decoded and to ' if decoded else ''}reach the device"
            + ("; --workers sets the number of processes that decode" if decoded else "")
        )

    def _save_between(self, done: int) -> None:
        """Saves within an epoch, where that is due or the run shall stop."""
        if self.stop() or (self.config.save_steps and done % self.config.save_steps == 0):
            self._save()
            self.leave_if_asked()

    def leave_if_asked(self) -> None:
        """Raises `StoppedError` where the run was asked to stop, after the save that has begun."""
        if self.stop():
            self._wait()
            raise StoppedError

    def _save(self, test_error: float | None = None) -> None:
        if self.checkpoints is None:
            return
        if not _is_finite(self.state):
            rate = float(self._rate(self.place.step - 1))
            raise NonFiniteError(
                f"the state is no longer made of numbers after step {self.place.step}, at learning rate {rate:.3g}"
            )
        self._wait()
        self.before_save()
        with self._warning():
            self.checkpoints.save(self.state, self.place, test_error)

    def _wait(self) -> None:
        if self.checkpoints is not None:
            with self._warning():
                self.checkpoints.wait()

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        """A full disk is no reason to lose what the run still computes."""
        try:
            yield
        except SaveError as error:
            self.warn(f"a checkpoint could not be written ({error}); {self.last_good()}")

    def last_good(self) -> str:
        """Says where the last checkpoint is that was written."""
        good = steps_in(self.checkpoints.folder) if self.checkpoints is not None else []
        return f"the last good one is {self.checkpoints.folder / str(good[-1])}" if good else "there is none yet"

    def _test(self, progress: Progress) -> Tally:
        tally = Tally()
        for fed in self._feed.test():
            if self.stop():  # the state is that of before the test, which begins anew
                self._save()
                self.leave_if_asked()
            scores = eval_step(
                self.state,
                fed.inputs,
                fed.places,
                fed.indices,
                self._cut(fed.real),
                self._key,
                task=self.task,
                labels=fed.labels,
            )
            error = self._read(scores, fed, tally, f"the test after step {self.place.step}")
            progress("test", tally, error)
        return tally

    def _read(self, scores: Scores, fed: Fed, tally: Tally, where: str) -> float:
        # This waits for the step. With some 30 computations under way XLA's CPU devices block one another for good.
        error = float(scores.error)
        if not math.isfinite(error):
            rate = float(self._rate(self.place.step))
            raise NonFiniteError(f"the loss is {error} in {where}, at learning rate {rate:.3g}")
        tally.add(error, float(scores.accuracy), int(fed.real.sum()))
        return error

    def close(self) -> None:
        """Ends whatever reads ahead, after the save that has begun."""
        self._feed.close()
        if self.checkpoints is not None:
            self.checkpoints.close()

    def save_weights(self, path: Path) -> None:
        """Writes the weights under PyTorch's names, as a ``.safetensors`` file."""
        flax_attn.to_torch(network_of(self.state), path)


@jax.jit
def _is_finite(state: TrainState) -> jax.Array:
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in floats]))
