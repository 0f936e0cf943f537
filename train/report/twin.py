"""Trains a PyTorch twin as ``python -m train`` trains ours, into a run folder that holds the same.

Initial weights, images, patches, batches in their order and learning rates are those of our run with the same
options; dropout masks are PyTorch's own. In float32 rounding takes two such runs apart within some hundred steps: that
they come to the same is a statement about training, `python -m train compare` is the one about each step.
"""

import contextlib
import itertools
import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch

import flax_attn

from ..config import Config
from ..data import Source
from ..data.batches import check_batch_size
from ..data.feed import Fed, open_feed
from ..devices import Layout
from ..look import finish
from ..loop import NonFiniteError, StoppedError
from ..metrics import EpochMetrics, Tally
from ..networks import build_network
from ..plots import save_curves
from ..runs import CONFIG, RunFolder
from ..step import learning_rate
from ..tasks.patch import TEST, TRAIN, draw_fed
from ..twin import error_of, share_right, take_step, tensors, twin_of

STATE = "twin.pt"  # after the last epoch that was done

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


class TwinRun:
    """A twin in training, from the last epoch that its folder has.

    Args:
        config: the options; run_dir names the folder, which is made where it is not there.
        source: the images.
        stop: whether the run shall leave after the step at hand; what its epoch had come to is then lost.

    Raises:
        ValueError: the folder holds a run on other images, one that another process trains, or a broken state.
    """

    def __init__(self, config: Config, source: Source, stop: Callable[[], bool] = lambda: False) -> None:
        self.config, self.source, self._stop = config, source, stop
        path = Path(str(config.run_dir))
        begun = (path / CONFIG).is_file()
        self.folder = RunFolder(path) if begun else RunFolder.create(config, source)
        with contextlib.ExitStack() as undo:
            undo.callback(self.folder.close)
            if begun:
                self.folder.hold()
            self.folder.check_data(source)
            self._prepare(config, source)
            undo.pop_all()

    def _prepare(self, config: Config, source: Source) -> None:
        check_batch_size(config.batch_size, source.train)
        layout = Layout(config.batch_size)
        self._feed = open_feed(source, config, layout)
        self._key = layout.copy(jax.random.key(config.seed))
        self._steps = len(source.train) // config.batch_size
        self._rate = learning_rate(config, config.epochs * self._steps)
        torch.manual_seed(config.seed)
        twin = twin_of(build_network(config, *source.shape), config, *source.shape)
        # The faster format for PyTorch; it changes no more than the order of sums.
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._twin = twin.to(self._device, memory_format=torch.channels_last)
        self._optimizer = torch.optim.Adam(self._twin.parameters(), lr=config.learning_rate)
        self._epochs = self._restore()

    def train(self, progress: Callable[[EpochMetrics], None]) -> None:
        """Does the epochs that are missing and fills the folder.

        Raises:
            NonFiniteError: the loss is infinite or not a number.
            StoppedError: the run was asked to stop.
        """
        try:
            for epoch in range(self._epochs, self.config.epochs):
                train, speed = self._train(epoch)
                test = self._test()
                metrics = EpochMetrics(epoch + 1, train.error, train.accuracy, test.error, test.accuracy, speed)
                self.folder.add_epoch(metrics)
                self._save(epoch + 1)
                progress(metrics)
            self._finish()
        finally:
            self._feed.close()
            self.folder.close()

    def _train(self, epoch: int) -> tuple[Tally, float]:
        tally, began = Tally(), time.perf_counter()
        rates = np.asarray(jax.vmap(self._rate)(jnp.arange(self._steps) + epoch * self._steps))
        self._twin.train()
        for step, (x, y) in enumerate(self._batches(self._feed.train(epoch, 0), TRAIN, epoch)):
            error, right = take_step(self._twin, self._optimizer, x, y, float(rates[step]))
            where = f"epoch {epoch + 1}, step {step + 1}"
            if not np.isfinite(error):
                raise NonFiniteError(f"PyTorch's loss is {error} in {where}, at learning rate {rates[step]:.3g}")
            tally.add(error, right, len(y))
            self.folder.add_step(epoch * self._steps + step + 1, error)
            if self._stop():
                raise StoppedError
            if step == 0 and self._steps > 1:  # which allocates, and on the other side compiles
                began = time.perf_counter()
        timed = max(self._steps - 1, 1) * self.config.batch_size
        return tally, timed / max(time.perf_counter() - began, 1e-9)

    def _test(self) -> Tally:
        tally = Tally()
        self._twin.eval()
        tests, feds = itertools.tee(self._feed.test())
        with torch.no_grad():
            for fed, (x, y) in zip(feds, self._batches(tests, TEST, 0), strict=True):
                p, label = self._twin(x)[0][fed.real], y[fed.real]
                error = error_of(p, label).item()
                if not np.isfinite(error):
                    raise NonFiniteError(f"PyTorch's loss is {error} in a test")
                tally.add(error, share_right(p, label), len(label))
        return tally

    def _batches(self, feds: Iterator[Fed], split: int, epoch: int) -> Batches:
        for fed in feds:
            x, y = draw_fed(
                fed.inputs, fed.places, fed.indices, epoch, self._key, split=split, rule=self.config.patches
            )
            images, labels = tensors(np.asarray(x), np.asarray(y), "float32", torch.channels_last)
            yield images.to(self._device), labels.to(self._device)

    def _save(self, epochs: int) -> None:
        self.folder.sync()  # the state counts on the logs
        unfinished = self.folder.path / f".{STATE}.unfinished"
        with unfinished.open("wb") as file:
            torch.save(
                {
                    "epochs": epochs,
                    "network": self._twin.state_dict(),
                    "optimizer": self._optimizer.state_dict(),
                    "random": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
                },
                file,
            )
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.folder.path / STATE)

    def _restore(self) -> int:
        file = self.folder.path / STATE
        if not file.is_file():
            self.folder.go_back_to(0, 0)
            return 0
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            self._twin.load_state_dict(state["network"])
            self._optimizer.load_state_dict(state["optimizer"])
            epochs, (here, *devices) = int(state["epochs"]), state["random"]
            torch.set_rng_state(here)
            torch.cuda.set_rng_state_all(devices[: torch.cuda.device_count()])
        except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{file} must be the state of this twin, got another or a broken one: {error}") from error
        self.folder.go_back_to(epochs, epochs * self._steps)
        return epochs

    def _finish(self) -> None:
        path, config = self.folder.path, self.config
        network = build_network(config, *self.source.shape)
        flax_attn.from_torch(network, {name: tensor.cpu() for name, tensor in self._twin.state_dict().items()})
        network.eval()
        flax_attn.to_torch(network, path / "model.safetensors")
        save_curves(path / "curves.png", config, self.folder.history(), self.folder.step_errors())
        finish(path, config, network, self.source)
