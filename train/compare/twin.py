"""The twin's side: PyTorch's Adam on the reference network."""

import time

import numpy as np
import torch
from flax import nnx

from flax_attn.layers import Dropout
from flax_attn.testing.masks import DropoutError
from flax_attn.testing.torch_side import share_dropout

from ..twin import take_step, tensors, twin_of
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


def train_twin(problem: Problem, run: int, progress: Progress) -> Trajectory:
    """Trains the twin.

    Args:
        problem: what it gets.
        run: 0 for the reference; each other run takes its sums in an order of its own, see `train.compare.orders`. The
            state_dict of such a run has its channels in that order.
        progress: is told of every step.
    """
    order = Order(run, problem.options.seed)
    masks = OurMasks(problem.network)
    twin = twin_of(problem.network, problem.options.config, *problem.size)
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
            losses.append(take_step(twin, optimizer, images, labels, float(problem.rates[step]))[0])
            seconds.append(time.perf_counter() - began)
            progress(NAME if run == 0 else f"{NAME}, order {run}")
    state_dict = {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
    return Trajectory(np.array(losses), np.array(seconds), state_dict)
