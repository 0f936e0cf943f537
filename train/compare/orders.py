"""Other orders in which PyTorch can take the sums of one training.

A training is made of sums over images, over channels and over places. Rounding depends on the order of each:

- over images: that of the images in their batch, which take their labels, patches and dropout masks along;
- over channels: that of the channels between two convolutions, which have no order of their own;
- over places, and within a convolution: the kernel's. PyTorch has others for each memory format, and for convolutions
  oneDNN's beside its own.

In exact arithmetic all of them are one training.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

KINDS = 4  # of kernels: two memory formats, with oneDNN and without


@dataclass(frozen=True)
class Order:
    """The orders of one run.

    Attributes:
        run: its number. Run 0 takes everything as it comes; each other one has random orders of its own, and four runs
            in a row go through all kernels.
        seed: of the random orders.
    """

    run: int
    seed: int

    def images(self, step: int, batch_size: int) -> np.ndarray:
        """Where each image of a step's batch comes from, (b,).

        Example:
            >>> Order(0, seed=0).images(step=5, batch_size=3).tolist()
            [0, 1, 2]
        """
        return self._shuffled(batch_size, 0, step)

    def channels(self, twin: torch.nn.Module) -> None:
        """Puts the channels between the convolutions of a patch network, with their weights, into the run's order."""
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

    @property
    def without_onednn(self) -> bool:
        """Whether convolutions are PyTorch's own."""
        return self.run > 0 and (self.run - 1) % KINDS >= KINDS // 2

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """Has PyTorch use the run's convolutions."""
        flags, before = torch.backends.mkldnn, torch.backends.mkldnn.enabled
        flags.enabled = before and not self.without_onednn
        try:
            yield
        finally:
            flags.enabled = before

    def _shuffled(self, count: int, *what: int) -> np.ndarray:
        places = np.arange(count)
        return places if self.run == 0 else np.random.default_rng([self.seed, self.run, *what]).permutation(places)
