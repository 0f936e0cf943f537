"""The PyTorch twin of a network in training: the batches, patches and learning rates of a run of ours, in PyTorch."""

import contextlib
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
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
from .tasks import task_of
from .tasks.patch import TEST, TINY, TRAIN, build_network, draw_fed

STATE = "twin.pt"  # after the last complete epoch

Losses = tuple[float, float, int]  # of a batch: mean loss, accuracy and number of images


def twin_of(network: PatchNetwork, config: PatchConfig, height: int, width: int) -> torch.nn.Module:
    """The twin of our network for images of this size, with its weights and their dtype, in training mode.

    Example:
        >>> from train.tasks.patch import build_network
        >>> config = PatchConfig(network="cbam")
        >>> type(twin_of(build_network(config, 96, 96), config, 96, 96).attn1).__name__
        'CBAM'
    """
    size = height // 4, width // 4  # of the attended map
    block = None if config.network == "cnn" else create_twin(config.network, CHANNELS, size)
    position = patch.create_position(None if config.position == "none" else config.position, *size)
    weights = {name: torch.tensor(array) for name, array in to_torch(network).items()}
    twin = patch.PatchNetwork(block, config.token_order, position).to(weights["final.weight"].dtype)
    twin.load_state_dict(weights)
    return twin.train()


def error_of(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The tutorial's loss, as it writes it.

    Example:
        >>> error_of(torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.0])).item().__round__(4)
        0.3466
    """
    return -torch.mean(y * torch.log(p + TINY) + (1 - y) * torch.log(1 - p + TINY))


def accuracy_of(p: torch.Tensor, y: torch.Tensor) -> float:
    """The share of images classified correctly."""
    return float((torch.round(p) == y).float().mean())


@dataclass(frozen=True)
class Order:
    """An order in which PyTorch takes the sums of a training; in exact arithmetic all of them are one training.

    Rounding depends on the order of images in their batch, of the channels between two convolutions, and of a
    convolution's own sums: PyTorch has other kernels for each memory format, and oneDNN's beside its own.

    Attributes:
        run: 0 takes everything as it comes, each other number has random orders of its own; four in a row go through
            all kernels.
        seed: of the random orders.
    """

    run: int = 0
    seed: int = 0

    def images(self, step: int, batch_size: int) -> np.ndarray:
        """The place of each image of a step's batch, (b,).

        Example:
            >>> Order().images(step=5, batch_size=3).tolist()
            [0, 1, 2]
        """
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

    Attributes:
        order: (b,), the place of each image of the batch.
    """

    def __init__(self, network: nnx.Module) -> None:
        modules = nnx.iter_modules(nnx.clone(network))
        self._layers = {".".join(map(str, path)): module for path, module in modules if isinstance(module, Dropout)}
        self.order: np.ndarray | None = None

    def draw(self, path: str, rate: float, shape: tuple[int, ...]) -> np.ndarray:
        """The mask for the next call of one of the twin's dropouts."""
        layer = self._layers.get(path)
        if layer is None or layer.rngs is None or layer.rate != rate:
            raise DropoutError(f"our network must have a dropout {path!r} with rate {rate}, got {layer}")
        return np.asarray(layer.keep_mask(layer.rngs(), rate, shape))[self.order]


class Twin:
    """The twin of a network in training, on the batches of a run; `train_epoch` and `test` correspond to `Run`'s.

    Args:
        run: its feed, patches and learning rates are used, its state is neither read nor changed.
        network: ours with the initial weights.
        order: of the twin's sums; its state_dict has the channels in this order.
        memory_format: of images and weights, by default the order's.
        device: where the twin computes.
        masks: for its dropouts, by default PyTorch's own.

    Attributes:
        seconds: that the last training step took, without the drawing of its batch.
    """

    error_of = staticmethod(error_of)

    def __init__(
        self,
        run: Run,
        network: PatchNetwork,
        *,
        order: Order | None = None,
        memory_format: torch.memory_format | None = None,
        device: str = "cpu",
        masks: OurMasks | None = None,
    ) -> None:
        assert isinstance(run.config, PatchConfig)
        self.run, self.config, self.masks, self.device, self.seconds = run, run.config, masks, device, 0.0
        self.order = order or Order()
        self.memory_format = memory_format or self.order.memory_format
        self.network = twin_of(network, run.config, *run.source.shape)
        self.dtype = self.network.final.weight.dtype
        self.order.channels(self.network)
        self.network.to(device, memory_format=self.memory_format)
        if masks is not None:
            share_dropout(self.network, masks, None)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=run.config.learning_rate)

    def rates(self, epoch: int) -> np.ndarray:
        """The learning rates of an epoch, (steps,)."""
        steps = jnp.arange(self.run.steps, dtype=jnp.int32) + epoch * self.run.steps
        return np.asarray(jax.vmap(self.run.rate)(steps), np.float64)

    def train_epoch(self, epoch: int) -> Iterator[Losses]:
        """Takes the training steps of an epoch, counted from 0."""
        self.network.train()
        for step, (fed, rate) in enumerate(zip(self.run.feed.train(epoch, 0), self.rates(epoch), strict=True)):
            places = self.order.images(epoch * self.run.steps + step, len(fed.real))
            if self.masks is not None:
                self.masks.order = places
            images, labels = self._draw(fed, TRAIN, epoch, places)
            began = time.perf_counter()
            losses = self.take_step(images, labels, float(rate))
            self.seconds = time.perf_counter() - began
            yield losses

    def take_step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> Losses:
        """Takes an optimizer step on images (b, 3, h, w) and labels (b,); the losses are those before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        p = self.network(images)[0]
        loss = self.error_of(p, labels)
        loss.backward()
        self.optimizer.step()
        return loss.item(), accuracy_of(p, labels), len(labels)

    def test(self) -> Iterator[Losses]:
        """Scores the test set, batch by batch."""
        self.network.eval()
        for fed in self.run.feed.test():
            images, labels = self._draw(fed, TEST, 0, np.arange(len(fed.real)))
            with torch.no_grad():
                p, labels = self.network(images)[0][fed.real], labels[fed.real]
                yield self.error_of(p, labels).item(), accuracy_of(p, labels), len(labels)

    def _draw(self, fed: Fed, split: int, epoch: int, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        rule = self.config.patches
        x, y = draw_fed(fed.inputs, fed.places, fed.indices, epoch, self.run.key, split=split, rule=rule)
        images = torch.tensor(np.asarray(x)[places], dtype=self.dtype).permute(0, 3, 1, 2)
        labels = torch.tensor(np.asarray(y)[places], dtype=self.dtype)
        return images.contiguous(memory_format=self.memory_format).to(self.device), labels.to(self.device)


class TwinRun:
    """Trains a twin as ``python -m train`` trains ours, into a run folder with the same files, and resumes it.

    Dropout masks are PyTorch's own, so the two runs agree in their results, not in each step.

    Args:
        config: the options; run_dir names the folder, which is created where there is none.
        source: the images.
        stop: whether to leave after the current step, without what its epoch has done.

    Raises:
        ValueError: the folder holds a run on other images, one that another process trains, or a broken state.
    """

    def __init__(self, config: PatchConfig, source: Source, stop: Callable[[], bool] = lambda: False) -> None:
        self.config, self.source, self._stop = config, source, stop
        path = Path(str(config.run_dir))
        begun = (path / CONFIG).is_file()
        self.folder = RunFolder(path) if begun else RunFolder.create(config, source)
        with contextlib.ExitStack() as undo:
            undo.callback(self.folder.close)
            if begun:
                self.folder.hold()
            self.folder.check_data(source)
            self._run = Run(config, source)
            undo.callback(self._run.close)
            torch.manual_seed(config.seed)
            device = "cuda" if torch.cuda.is_available() else "cpu"
            network = build_network(config, *source.shape)
            # The format that is faster in PyTorch.
            self._twin = Twin(self._run, network, memory_format=torch.channels_last, device=device)
            self._epochs = self._restore()
            undo.pop_all()

    def train(self, progress: Callable[[EpochMetrics], None]) -> None:
        """Trains the missing epochs and fills the folder, unless it raises `NonFiniteError` or `StoppedError`."""
        try:
            for epoch in range(self._epochs, self.config.epochs):
                train, speed = self._train(epoch)
                test = Tally()
                for losses in self._twin.test():
                    self._add(test, losses, f"the test after epoch {epoch + 1}")
                metrics = EpochMetrics(epoch + 1, train.error, train.accuracy, test.error, test.accuracy, speed)
                self.folder.add_epoch(metrics)
                self._save(epoch + 1)
                progress(metrics)
            self._finish()
        finally:
            self._run.close()
            self.folder.close()

    def _train(self, epoch: int) -> tuple[Tally, float]:
        tally, began, steps = Tally(), time.perf_counter(), self._run.steps
        for step, losses in enumerate(self._twin.train_epoch(epoch), 1):
            done = epoch * steps + step
            self._add(tally, losses, f"epoch {epoch + 1}, step {step}, {self._run.at_rate(done - 1)}")
            self.folder.add_step(done, losses[0])
            if self._stop():
                raise StoppedError
            if step == 1 < steps:  # which allocates memory; on our side the first one compiles
                began = time.perf_counter()
        return tally, max(steps - 1, 1) * self.config.batch_size / max(time.perf_counter() - began, 1e-9)

    def _add(self, tally: Tally, losses: Losses, where: str) -> None:
        if not np.isfinite(losses[0]):
            raise NonFiniteError(f"PyTorch: non-finite loss ({losses[0]}) in {where}")
        tally.add(*losses)

    def _save(self, epochs: int) -> None:
        self.folder.sync()  # the state relies on the logs' lines
        state = {
            "epochs": epochs,
            "network": self._twin.network.state_dict(),
            "optimizer": self._twin.optimizer.state_dict(),
            "random": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
        }
        unfinished = self.folder.path / f".{STATE}.unfinished"
        torch.save(state, unfinished)
        sync(unfinished)
        unfinished.replace(self.folder.path / STATE)

    def _restore(self) -> int:
        file = self.folder.path / STATE
        if not file.is_file():
            self.folder.go_back_to(0, 0)
            return 0
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            self._twin.network.load_state_dict(state["network"])
            self._twin.optimizer.load_state_dict(state["optimizer"])
            epochs, (here, *devices) = int(state["epochs"]), state["random"]
            torch.set_rng_state(here)
            torch.cuda.set_rng_state_all(devices[: torch.cuda.device_count()])
        except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(f"{file} must be the state of this twin, got another or a broken one: {error}") from error
        self.folder.go_back_to(epochs, epochs * self._run.steps)
        return epochs

    def _finish(self) -> None:
        path, config = self.folder.path, self.config
        network = build_network(config, *self.source.shape)
        from_torch(network, {name: tensor.cpu() for name, tensor in self._twin.network.state_dict().items()})
        network.eval()  # type: ignore[no-untyped-call]
        to_torch(network, path / "model.safetensors")
        save_curves(path / "curves.png", config, self.folder.history(), self.folder.step_errors())
        finish(path, config, task_of(config), network, self.source)
