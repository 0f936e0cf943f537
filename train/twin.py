"""The PyTorch twin of a network in training: the batches, patches and learning rates of a run of ours, in PyTorch."""

import contextlib
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx

from flax_attn import from_torch, to_torch
from flax_attn.layers import Dropout
from flax_attn.networks.patch import CHANNELS, PatchNetwork
from flax_attn.testing.masks import DropoutError
from flax_attn.testing.torch_side import share_dropout
from torch_ref.networks import patch
from torch_ref.pairs import create_twin

from .config import PatchConfig
from .data import Source
from .data.feed import Fed
from .look import finish
from .loop import NonFiniteError, Run, StoppedError, Tally
from .plots import save_curves
from .runs import CONFIG, EpochMetrics, RunFolder, sync
from .signals import Stop
from .tasks import task_of
from .tasks.patch import TEST, TINY, TRAIN, build_network, draw_fed

STATE = "twin.pt"  # after the last complete epoch

Losses = tuple[float, float, int]  # of a batch: mean loss, accuracy and number of images


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

    Rounding depends on the order of images in their batch, of the channels between two convolutions, and of a
    convolution's own sums: PyTorch has other kernels for each memory format, and oneDNN's beside its own.
    """

    run: int = 0  # 0 takes everything as it comes; others have random orders, and four in a row go through all kernels
    seed: int = 0

    def images(self, step: int, batch_size: int) -> np.ndarray:
        """The place of each image of a step's batch, (b,)."""
        return self._shuffled(batch_size, 0, step)

    def channels(self, twin: torch.nn.Module) -> None:
        """Reorders the channels between the convolutions of a patch network, with their weights."""
        conv = twin.conv
        between = ((conv.c1a, conv.bn1a, conv.c2a), (conv.c2a, conv.bn2a, conv.c3))
        with torch.no_grad():
            for place, (before, norm, after) in enumerate(between):
                order = torch.from_numpy(self._shuffled(len(before.bias), 1, place))
                for tensor in (*before.parameters(), *norm.parameters(), norm.running_mean, norm.running_var):
                    tensor.copy_(tensor[order])
                after.weight.copy_(after.weight[:, order])

    @property
    def memory_format(self) -> torch.memory_format:
        """Of images and weights."""
        return torch.channels_last if self.run % 2 else torch.contiguous_format

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """Makes PyTorch use this order's convolutions."""
        flags, before = torch.backends.mkldnn, torch.backends.mkldnn.enabled
        flags.enabled = before and (self.run == 0 or (self.run - 1) % 4 < 2)
        try:
            yield
        finally:
            flags.enabled = before

    def _shuffled(self, count: int, *what: int) -> np.ndarray:
        places = np.arange(count)
        return places if self.run == 0 else np.random.default_rng([self.seed, self.run, *what]).permutation(places)


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
        layer = self._layers.get(path)
        if layer is None or layer.rngs is None or layer.rate != rate:
            raise DropoutError(f"our network must have a dropout {path!r} with rate {rate}, got {layer}")
        return np.asarray(layer.keep_mask(layer.rngs(), rate, shape))[self.order]


class Twin:
    """The twin of a network in training, on the batches of a run; `train_epoch` and `test` correspond to `Run`'s.

    It uses the run's feed, patches and learning rates, and begins with the weights of ``network``. ``masks`` are those
    of its dropouts, by default PyTorch's own; ``fast`` takes the faster memory format, and a GPU where there is one.
    """

    error_of = staticmethod(error_of)

    def __init__(
        self, run: Run, network: PatchNetwork, order: Order, masks: OurMasks | None = None, *, fast: bool = False
    ) -> None:
        assert isinstance(run.config, PatchConfig)
        self.run, self.rule, self.order, self.masks = run, run.config.patches, order, masks
        self.device = "cuda" if fast and torch.cuda.is_available() else "cpu"
        self.memory_format = torch.channels_last if fast else order.memory_format
        self.network = twin_of(network, run.config, *run.source.shape)
        self.dtype = self.network.final.weight.dtype
        order.channels(self.network)
        self.network.to(self.device, memory_format=self.memory_format)
        if masks is not None:
            share_dropout(self.network, masks, None)
        self.optimizer = torch.optim.Adam(self.network.parameters())
        self.seconds = 0.0  # that the last training step took, without the drawing of its batch

    def train_epoch(self, epoch: int) -> Iterator[Losses]:
        """Takes the training steps of an epoch, counted from 0; the losses are those before each step."""
        self.network.train()
        steps = np.arange(self.run.steps, dtype=np.int32) + epoch * self.run.steps
        rates = np.asarray(jax.vmap(self.run.rate)(steps), np.float64)  # each alone rounds otherwise
        for step, rate, fed in zip(steps.tolist(), rates.tolist(), self.run.feed.train(epoch, 0), strict=True):
            places = self.order.images(step, len(fed.real))
            if self.masks is not None:
                self.masks.order = places
            images, labels = self._draw(fed, TRAIN, epoch, places)
            began = time.perf_counter()
            loss, losses = self.score(images, labels)
            self.take_step(loss, rate)
            self.seconds = time.perf_counter() - began
            yield losses

    def take_step(self, loss: torch.Tensor, rate: float) -> None:
        """Takes an optimizer step down the gradient of a loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def test(self) -> Iterator[Losses]:
        """Scores the test set, batch by batch."""
        self.network.eval()
        for fed in self.run.feed.test():
            images, labels = self._draw(fed, TEST, 0, np.arange(len(fed.real)))
            with torch.no_grad():
                yield self.score(images, labels, fed.real)[1]

    def score(self, images: torch.Tensor, labels: torch.Tensor, real: Any = ...) -> tuple[torch.Tensor, Losses]:
        """The loss of images (b, 3, h, w) with labels (b,), of those that are ``real`` (b,)."""
        p, labels = self.network(images)[0][real], labels[real]
        loss = self.error_of(p, labels)
        return loss, (loss.item(), float((torch.round(p) == labels).float().mean()), len(labels))

    def _draw(self, fed: Fed, split: int, epoch: int, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = draw_fed(fed.inputs, fed.places, fed.indices, epoch, self.run.key, split=split, rule=self.rule)
        images = torch.tensor(np.asarray(x)[places], dtype=self.dtype).permute(0, 3, 1, 2)
        labels = torch.tensor(np.asarray(y)[places], dtype=self.dtype)
        return images.contiguous(memory_format=self.memory_format).to(self.device), labels.to(self.device)


def train(config: PatchConfig, source: Source, stop: Stop) -> Iterator[EpochMetrics]:
    """Trains a twin as ``python -m train`` trains ours, epoch by epoch, into a run folder with the same files.

    A run that was begun resumes after its last complete epoch. Dropout masks are PyTorch's own, so the two sides agree
    in their results, not in each step.
    """
    path = Path(str(config.run_dir))
    begun = (path / CONFIG).is_file()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(contextlib.closing(RunFolder(path) if begun else RunFolder.create(config, source)))
        if begun:
            folder.hold()
            folder.check_data(source)
        run = stack.enter_context(contextlib.closing(Run(config, source)))
        torch.manual_seed(config.seed)
        network = build_network(config, *source.shape)
        twin = Twin(run, network, Order(), fast=True)
        for epoch in range(_restore(twin, folder), config.epochs):
            scores, test, began, untimed = Tally(), Tally(), time.perf_counter(), 0
            for step, losses in enumerate(twin.train_epoch(epoch), 1):
                done = epoch * run.steps + step
                _add(scores, losses, f"epoch {epoch + 1}, step {step}, {run.at_rate(done - 1)}")
                folder.add_step(done, losses[0])
                if stop:
                    raise StoppedError
                if step == 1 < run.steps:  # which allocates memory; on our side the first one compiles
                    began, untimed = time.perf_counter(), 1
            speed = (run.steps - untimed) * config.batch_size / max(time.perf_counter() - began, 1e-9)
            for losses in twin.test():
                _add(test, losses, f"the test after epoch {epoch + 1}")
            metrics = EpochMetrics(epoch + 1, scores.error, scores.accuracy, test.error, test.accuracy, speed)
            folder.add_epoch(metrics)
            _save(twin, folder, epoch + 1)
            yield metrics
        from_torch(network, {name: tensor.cpu() for name, tensor in twin.network.state_dict().items()})
        network.eval()
        to_torch(network, path / "model.safetensors")
        save_curves(path / "curves.png", config, folder.history(), folder.step_errors())
        finish(path, config, task_of(config), network, source)


def _add(tally: Tally, losses: Losses, where: str) -> None:
    if not np.isfinite(losses[0]):
        raise NonFiniteError(f"PyTorch: non-finite loss ({losses[0]}) in {where}")
    tally.add(*losses)


def _save(twin: Twin, folder: RunFolder, epochs: int) -> None:
    folder.sync()  # the state relies on the logs' lines
    state = {
        "epochs": epochs,
        "network": twin.network.state_dict(),
        "optimizer": twin.optimizer.state_dict(),
        "random": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
    }
    unfinished = folder.path / f".{STATE}.unfinished"
    torch.save(state, unfinished)
    sync(unfinished)
    unfinished.replace(folder.path / STATE)


def _restore(twin: Twin, folder: RunFolder) -> int:
    """Takes a twin and its folder back to the last complete epoch, and returns the number of epochs."""
    file, epochs = folder.path / STATE, 0
    if file.is_file():
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            twin.network.load_state_dict(state["network"])
            twin.optimizer.load_state_dict(state["optimizer"])
            epochs, (here, *devices) = int(state["epochs"]), state["random"]
            torch.set_rng_state(here)
            torch.cuda.set_rng_state_all(devices[: torch.cuda.device_count()])
        except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{file} must be the state of this twin, got another or a broken one: {error}") from error
    folder.go_back_to(epochs, epochs * twin.run.steps)
    return epochs
