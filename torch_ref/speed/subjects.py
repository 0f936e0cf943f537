"""What is timed: the blocks and the networks, and what each of them takes and gives."""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flax_attn import list_blocks
from flax_attn.registry import find_block
from train.config import NETWORKS, PRESETS, Config, PatchConfig
from train.data import Source
from train.tasks import task_of

FORWARD, BACKWARD, STEP = "forward", "forward + backward", "training step"
OTHER_TASKS = ("channel", "sensor")  # whose networks have shapes of their own


@dataclass(frozen=True)
class Subject:
    """A block, "block/cbam", or a network, "network/cbam", on maps of one size.

    Attributes:
        name: of the two parts.
        batch: maps or images in a call.
        size: height, width and channels of the map. A patch network attends to such a map of 32 channels, and takes
            images four times as high and wide; the networks of other tasks have the sizes of their generated data.
    """

    name: str
    batch: int = 10
    size: tuple[int, int, int] = (24, 24, 32)

    @property
    def is_block(self) -> bool:
        return self.name.startswith("block/")

    @property
    def works(self) -> tuple[str, ...]:
        """What is timed of it."""
        return (FORWARD, BACKWARD) if self.is_block else (FORWARD, BACKWARD, STEP)

    @property
    def kind(self) -> str:
        """How it is called: a kind of block, or "network"."""
        return find_block(self.name.split("/")[1]).kind if self.is_block else "network"

    @property
    def config(self) -> Config:
        """The options of the network's training."""
        network = self.name.split("/")[1]
        if network in OTHER_TASKS:
            return replace(PRESETS[network]["article"], batch_size=self.batch)
        return PatchConfig(network=network, batch_size=self.batch)

    def source(self) -> Any:
        """Records for the network's training: noise, as no time depends on them, or generated ones."""
        if not isinstance(self.config, PatchConfig):
            return task_of(self.config).open("synthetic")
        height, width, _ = self.size
        images = np.random.default_rng(0).integers(0, 256, (2 * self.batch + 5, 4 * height, 4 * width, 3))
        return Source("noise", images.astype(np.uint8))

    def call(self, module: Any, x: Any) -> Any:
        """The output of either framework's module, as self-attention where it takes more than a map."""
        out = module(*[x] * {"tokens": 3, "context": 2}.get(self.kind, 1))
        return out[0] if isinstance(out, tuple) else out


def find_subjects(patterns: Iterable[str]) -> list[str]:
    """The names of all blocks and networks that match one of the patterns, in whole or behind the slash.

    Raises:
        ValueError: a pattern that matches nothing.

    Example:
        >>> find_subjects(["eca", "network/c[bn]*"])
        ['block/eca', 'network/cnn', 'network/cbam', 'network/cbam_spatial', 'network/eca']
    """
    blocks = list_blocks()
    names = [f"block/{name}" for name in blocks]
    names += [f"network/{name}" for name in (*NETWORKS, *OTHER_TASKS)]

    def matches(name: str, pattern: str) -> bool:
        return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.split("/")[1], pattern)

    patterns = list(patterns) or ["*"]
    unknown = [pattern for pattern in patterns if not any(matches(name, pattern) for name in names)]
    if unknown:
        raise ValueError(f"NAME must be among {', '.join(names)}, got {', '.join(unknown)}")
    return [name for name in names if any(matches(name, pattern) for pattern in patterns)]
