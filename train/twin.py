"""The PyTorch twin of a network in training: the batches, patches and learning rates of a run of ours, in PyTorch."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from flax import nnx

from flax_attn import from_torch, to_torch
from flax_attn.layers import Dropout
from flax_attn.networks.patch import CHANNELS, PatchNetwork
from flax_attn.testing.torch_side import share_dropout
from torch_ref.networks import patch
from torch_ref.pairs import create_twin

from .config import PatchConfig
from .data import Source
from .data.feed import Fed
from .look import finish
from .loop import NonFiniteError, Run, StoppedError, Tally
from .plots import save_curves
from .runs import CONFIG, EpochMetrics, RunFolder
from .signals import Stop
from .tasks import task_of
from .tasks.patch import TEST, TINY, TRAIN, build_network, draw_fed


class Losses(NamedTuple):
    """The mean loss of a batch, and its accuracy."""

    error: float
    accuracy: float


def twin_of(network: PatchNetwork, config: PatchConfig, height: int, width: int) -> torch.nn.Module:
    """The twin of our network for images of this size, with its weights and their dtype, in training mode."""
    size = height // 4, width // 4  # of the attended map
    block = None if config.network == "cnn" else create_twin(config.network, CHANNELS, size)
    position = patch.create_position(None if config.position == "none" else config.position, *size)
    weights = {name: torch.tensor(array) for name, array in to_torch(network).items()}
    twin = patch.PatchNetwork(block, config.token_order, position).to(weights["final.weight"].dtype)
    twin.load_state_dict(weights)
    return twin.train()


def error_of(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The tutorial's loss, as it writes it."""
    return -torch.mean(y * torch.log(p + TINY) + (1 - y) * torch.log(1 - p + TINY))


@dataclass(frozen=True)
class Order:
    """An order in which PyTorch takes the sums of a training; in exact arithmetic all of them are one training.

    Rounding depends on the order of images in their batch and on that of a convolution's own sums: PyTorch has other
    kernels for each memory format.
    """

    run: int = 0  # 0 takes everything as it comes
    seed: int = 0

    def __str__(self) -> str:
        return f"order {self.run}"

    def images(self, step: int, batch_size: int) -> np.ndarray:
        """The place of each image of a step's batch, (b,)."""
        places = np.arange(batch_size)
        return places if self.run == 0 else np.random.default_rng([self.seed, self.run, step]).permutation(places)

    @property
    def memory_format(self) -> torch.memory_format:
        """Of images and weights."""
        return torch.channels_last if self.run % 2 else torch.contiguous_format


class OurMasks:
    """Gives the twin's dropouts the masks that ours draw in the same step.

    A mask follows from the seed and from how often the layer has been called, so a copy of our network draws, call by
    call, what the one in training does.
    """

    def __init__(self, network: nnx.Module) -> None:
        modules = nnx.iter_modules(nnx.clone(network))
        self._layers = {".".join(map(str, path)): module for path, module in modules if isinstance(module, Dropout)}
        self.order: np.ndarray | None = None  # (b,), the place of each image of the batch

    def draw(self, path: str, rate: float, shape: tuple[int, ...]) -> np.ndarray:
        """The mask for the next call of one of the twin's dropouts."""
        layer: Any = self._layers[path]
        return np.asarray(layer.keep_mask(layer.rngs(), layer.rate, shape))[self.order]


class Twin:
    """The twin of a network in training, on the batches of a run; `train_epoch` and `test` correspond to `Run`'s.

    It uses the run's feed, patches and learning rates, and begins with the weights of ``network``. Without an ``order``
    it takes the faster memory format, and a GPU where there is one; without ``masks`` its dropouts draw their own.
    """

    error_of = staticmethod(error_of)

    def __init__(
        self, run: Run, network: PatchNetwork, order: Order | None = None, masks: OurMasks | None = None
    ) -> None:
        assert isinstance(run.config, PatchConfig)
        self.run, self.rule, self.order, self.masks = run, run.config.patches, order or Order(), masks
        self.device = "cuda" if order is None and torch.cuda.is_available() else "cpu"
        self.memory_format = torch.channels_last if order is None else order.memory_format
        self.network = twin_of(network, run.config, *run.source.shape)
        self.dtype = self.network.final.weight.dtype
        self.network.to(self.device, memory_format=self.memory_format)
        if masks is not None:
            share_dropout(self.network, masks, None)
        self.optimizer = torch.optim.Adam(self.network.parameters())

    def train_epoch(self, epoch: int) -> Iterator[tuple[Fed, Losses]]:
        """Takes the training steps of an epoch, counted from 0; the losses are those before each step."""
        self.network.train()
        steps = np.arange(self.run.steps, dtype=np.int32) + epoch * self.run.steps
        rates = np.asarray(jax.vmap(self.run.rate)(steps), np.float64)  # each alone rounds otherwise
        for step, rate, fed in zip(steps.tolist(), rates.tolist(), self.run.feed.train(epoch, 0), strict=True):
            places = self.order.images(step, len(fed.real))
            if self.masks is not None:
                self.masks.order = places
            loss, losses = self.score(fed, TRAIN, epoch, places)
            self.take_step(loss, rate)
            yield fed, losses

    def take_step(self, loss: torch.Tensor, rate: float) -> None:
        """Takes an optimizer step down the gradient of a loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def test(self) -> Iterator[tuple[Fed, Losses]]:
        """Scores the test set, batch by batch."""
        self.network.eval()
        for fed in self.run.feed.test():
            with torch.no_grad():
                yield fed, self.score(fed, TEST, 0, np.flatnonzero(fed.real))[1]

    def score(self, fed: Fed, split: int, epoch: int, places: np.ndarray) -> tuple[torch.Tensor, Losses]:
        """The loss of the images of a batch in these places."""
        x, y = draw_fed(fed.inputs, fed.places, fed.indices, epoch, self.run.key, split=split, rule=self.rule)
        images = torch.tensor(np.asarray(x)[places], dtype=self.dtype).permute(0, 3, 1, 2)
        labels = torch.tensor(np.asarray(y)[places], dtype=self.dtype).to(self.device)
        p, _ = self.network(images.contiguous(memory_format=self.memory_format).to(self.device))
        loss = self.error_of(p, labels)
        return loss, Losses(loss.item(), float((torch.round(p) == labels).float().mean()))


def train(config: PatchConfig, source: Source, stop: Stop) -> Iterator[EpochMetrics]:
    """Trains a twin as ``python -m train`` trains ours, epoch by epoch, into a run folder with the same files.

    A run that was stopped starts over. Dropout masks are PyTorch's own, so the two sides agree in their results, not in
    each step.
    """
    path = Path(str(config.run_dir))
    begun = (path / CONFIG).is_file()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(contextlib.closing(RunFolder(path) if begun else RunFolder.create(config, source)))
        if begun:
            folder.hold()
            folder.go_back_to(0, 0)
        run = stack.enter_context(contextlib.closing(Run(config, source)))
        torch.manual_seed(config.seed)
        network = build_network(config, *source.shape)
        twin = Twin(run, network)
        for epoch in range(config.epochs):
            scores, test, began = Tally(), Tally(), time.perf_counter()
            for step, (fed, losses) in enumerate(twin.train_epoch(epoch), epoch * run.steps + 1):
                _add(scores, fed, losses, f"step {step}, {run.at_rate(step - 1)}")
                folder.add_step(step, losses.error)
                if stop:
                    raise StoppedError
            speed = scores.images / (time.perf_counter() - began)
            for fed, losses in twin.test():
                _add(test, fed, losses, f"the test after epoch {epoch + 1}")
            metrics = EpochMetrics(epoch + 1, scores.error, scores.accuracy, test.error, test.accuracy, speed)
            folder.add_epoch(metrics)
            yield metrics
        from_torch(network, {name: tensor.cpu() for name, tensor in twin.network.state_dict().items()})
        network.eval()
        to_torch(network, path / "model.safetensors")
        save_curves(path / "curves.png", config, folder.history(), folder.step_errors())
        finish(path, config, task_of(config), network, source)


def _add(tally: Tally, fed: Fed, losses: Losses, where: str) -> None:
    if not np.isfinite(losses.error):
        raise NonFiniteError(f"PyTorch: non-finite loss ({losses.error}) in {where}")
    tally.add(*losses, int(fed.real.sum()))
