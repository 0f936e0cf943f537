"""The PyTorch twin of a network in training: the batches, patches and learning rates of a run of ours, in PyTorch."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from flax_attn import from_torch, to_torch
from flax_attn.layers import Dropout
from flax_attn.networks.patch import CHANNELS, PatchNetwork
from flax_attn.testing.torch_side import share_dropout
from torch_ref.networks import patch
from torch_ref.pairs import create_twin

from .checkpoints import Checkpoints
from .config import PatchConfig
from .data import Source
from .data.feed import Fed
from .loop import Run
from .step import Scores
from .tasks import TEST, TRAIN, Task, split_key
from .tasks.patch import TINY


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


@partial(jax.jit, static_argnames=("split", "task"))
def draw(fed: Fed, epoch: int, key: jax.Array, *, split: int, task: Task) -> tuple[jax.Array, jax.Array]:
    """The batch that our steps draw."""
    key = split_key(key, split, epoch)
    return task.draw(fed.records, fed.labels, fed.indices, key, training=split == TRAIN)


class Twin(Run):
    """A run whose steps PyTorch takes, from the same weights, on the same batches, at the same learning rates.

    Without an ``order`` it takes the faster memory format, and a GPU where there is one; its dropouts draw their own
    masks. With one its dropouts draw ours, and the number, 0 or more, says in which order PyTorch takes its sums; in
    exact arithmetic all of them are one training. Rounding depends on the order of images in their batch and on that of
    a convolution's own sums: PyTorch has other kernels for each memory format. A run that was stopped starts over.
    """

    error_of = staticmethod(error_of)

    def __init__(self, config: PatchConfig, source: Source, *, order: int | None = None, **options: Any) -> None:
        super().__init__(config, source, **options)
        self.order = order or 0
        self.device = "cuda" if order is None and torch.cuda.is_available() else "cpu"
        self.memory_format = torch.channels_last if order is None or order % 2 else torch.contiguous_format
        torch.manual_seed(config.seed)
        self.module = twin_of(super().network, config, *source.shape)
        self.module.to(self.device, memory_format=self.memory_format)
        self.dtype = self.module.final.weight.dtype
        modules = nnx.iter_modules(super().network)
        self.dropouts = {".".join(map(str, path)): module for path, module in modules if isinstance(module, Dropout)}
        if order is not None:
            share_dropout(self.module, self, None)
        self.optimizer = torch.optim.Adam(self.module.parameters())

    @property
    def network(self) -> Any:
        """Ours, with the weights of the twin."""
        return from_torch(super().network, {name: leaf.cpu() for name, leaf in self.module.state_dict().items()})

    def save(self, checkpoints: Checkpoints) -> None:
        """Saves nothing, so that the run starts over."""

    def train_epoch(self, epoch: int, first: int = 0, seconds: float = 0.0) -> Iterator[Scores]:
        """Takes the steps one by one, however short they are."""
        self.module.train()
        steps = np.arange(first, self.steps, dtype=np.int32) + epoch * self.steps
        rates = np.asarray(jax.vmap(self.rate)(steps), np.float64)  # each alone rounds otherwise
        for step, rate, fed in zip(steps.tolist(), rates.tolist(), self.feed.train(epoch, first), strict=True):
            self.places = self.order_of(step)
            loss, scores = self.score(fed, TRAIN, epoch, self.places)
            self.take_step(loss, rate)
            yield Scores(*map(np.atleast_1d, scores))

    def order_of(self, step: int) -> np.ndarray:
        """The places of the images in the batch of a step, (b,)."""
        places = np.arange(self.config.batch_size)
        return np.random.default_rng([self.config.seed, self.order, step]).permutation(places) if self.order else places

    def draw(self, path: str, rate: float, shape: tuple[int, ...]) -> np.ndarray:
        """The mask that our network draws in this step, for a call of one of the twin's dropouts.

        It follows from the seed and from how often the layer has been called, so a copy of ours draws the same.
        """
        layer: Any = self.dropouts[path]
        mask: np.ndarray = np.asarray(layer.keep_mask(layer.rngs(), layer.rate, shape))[self.places]
        return mask

    def take_step(self, loss: torch.Tensor, rate: float) -> None:
        """Takes an optimizer step down the gradient of a loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def test(self) -> Iterator[tuple[Fed, Scores]]:
        self.module.eval()
        for fed in self.feed.test():
            with torch.no_grad():
                yield fed, self.score(fed, TEST, 0, np.flatnonzero(fed.real))[1]

    def score(self, fed: Fed, split: int, epoch: int, places: np.ndarray) -> tuple[torch.Tensor, Scores]:
        """The loss of the images of a batch in these places."""
        x, y = draw(fed, epoch, self.key, split=split, task=self.task)
        images = torch.tensor(np.asarray(x)[places], dtype=self.dtype).permute(0, 3, 1, 2)
        labels = torch.tensor(np.asarray(y)[places], dtype=self.dtype).to(self.device)
        p, _ = self.module(images.contiguous(memory_format=self.memory_format).to(self.device))
        loss = self.error_of(p, labels)
        right = (torch.round(p) == labels).float().mean()
        return loss, Scores(jnp.asarray(loss.item()), jnp.asarray(right.item()))
