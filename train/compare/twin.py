"""The twin's side: PyTorch's Adam on the reference network. PyTorch is imported here, and here alone."""

import time

import numpy as np
import torch
from flax import nnx

from flax_attn import to_torch
from flax_attn.layers import Dropout
from flax_attn.testing.masks import DropoutError
from flax_attn.testing.torch_side import share_dropout
from torch_ref.networks import patch

from ..networks import NETWORKS
from ..step import TINY
from .orders import Order
from .problem import Problem, Progress, Trajectory

NAME = "PyTorch"


class OurMasks:
    """Gives the twin's dropouts the masks that ours draw in the same step.

    A mask follows from the seed and from how often the layer has been called. So a copy of our network draws, call by
    call, what the one in training does.

    Attributes:
        order: (b,), where each image of the batch stands.
    """

    def __init__(self, network: nnx.Module) -> None:
        modules = nnx.iter_modules(nnx.clone(network))
        self._layers = {".".join(map(str, path)): module for path, module in modules if isinstance(module, Dropout)}
        self.order: np.ndarray | None = None

    def draw(self, path: str, rate: float, shape: tuple[int, ...]) -> np.ndarray:
        """The mask of the next call of a dropout of the twin.

        Raises:
            ValueError: ours has no such dropout.
        """
        layer = self._layers.get(path)
        if layer is None or layer.rate != rate:
            raise DropoutError(f"our network must have a dropout {path!r} with rate {rate}, got {layer}")
        return np.asarray(layer.keep_mask(layer.rngs(), rate, shape))[self.order]


def build_twin(problem: Problem) -> torch.nn.Module:
    """The twin of our network with its weights, in training mode."""
    options, ours = problem.options, problem.network
    own = {}
    if "token_order" in NETWORKS[options.network].options:
        height, width = (size // 4 for size in problem.size)
        position = None if options.position == "none" else options.position
        own = {"token_order": options.token_order, "position": position, "height": height, "width": width}
    twin = getattr(patch, type(ours).__name__)(**own).to(getattr(torch, options.dtype))
    twin.load_state_dict({name: torch.tensor(array) for name, array in to_torch(ours).items()})
    return twin.train()


def train_twin(problem: Problem, run: int, progress: Progress) -> Trajectory:
    """Trains the twin.

    Args:
        problem: what it gets.
        run: 0 for the reference; each other run takes its sums in an order of its own, see `train.compare.orders`. The
            state_dict of such a run has its channels in that order.
        progress: is told of every step.
    """
    order = Order(run, problem.options.seed)
    twin, masks = build_twin(problem), OurMasks(problem.network)
    order.channels(twin)
    twin.to(memory_format=order.memory_format)
    share_dropout(twin, masks, None)
    optimizer = torch.optim.Adam(twin.parameters(), lr=float(problem.rates[0]))
    losses, seconds = [], []
    with order.kernels():
        for step, (x, y) in enumerate(problem.painted()):
            masks.order = order.images(step, len(y))
            images, labels = tensors(x[masks.order], y[masks.order], problem.options.dtype, order.memory_format)
            began = time.perf_counter()
            losses.append(take_step(twin, optimizer, images, labels, float(problem.rates[step])))
            seconds.append(time.perf_counter() - began)
            progress(NAME if run == 0 else f"{NAME}, order {run}")
    state_dict = {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
    return Trajectory(np.array(losses), np.array(seconds), state_dict)


def tensors(
    x: np.ndarray, y: np.ndarray, dtype: str, memory_format: torch.memory_format
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (b, h, w, 3) and labels (b,) as the twin takes them, the images as (b, 3, h, w)."""
    images = torch.tensor(x, dtype=getattr(torch, dtype)).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
    return images, torch.tensor(y, dtype=images.dtype)


def take_step(
    twin: torch.nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor, rate: float
) -> float:
    """One optimizer step on images (b, 3, h, w) and labels (b,); returns the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss = error_of(twin(images)[0], labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def error_of(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The tutorial's loss, as it writes it.

    Example:
        >>> error_of(torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.0])).item().__round__(4)
        0.3466
    """
    return -torch.mean(y * torch.log(p + TINY) + (1 - y) * torch.log(1 - p + TINY))
