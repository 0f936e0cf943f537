"""The classes task: the class of an image, by a ResNet with any attention, from random weights or a checkpoint.

Training images are flipped and shifted inside the step, each by (seed, epoch, image index), whatever batch or device it
is in.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from flax_attn import from_torch, to_torch
from flax_attn.convert import NAMES
from flax_attn.networks.resnet import ResNet, create_resnet

from ..config import ClassesConfig
from ..data.classes import DEVIATION, MEAN, LabelledImages, open_classes
from ..text import printable
from .labelled import cross_entropy, is_largest

SHIFTED = 8  # the largest shift is this fraction of a side
ATTENTION = re.compile(r"(layer\d\.\d+\.)?attention\d?(?=\.)")  # by its name in a checkpoint
SHRUNK = 32  # times: how much smaller than the image a ResNet's last map is


def normalised(images: Array) -> Array:
    """Images, uint8 (b, h, w, 3), as ``(images / 255 - MEAN) / DEVIATION`` in float32, as torchvision's networks."""
    return (images.astype(jnp.float32) / 255 - MEAN) / DEVIATION


def augmented(images: Array, indices: Array, key: Array) -> Array:
    """Images (b, h, w, c), each mirrored or not and shifted by up to an eighth, with 0 behind it.

    What is drawn depends on a key of `split_key` and on the image's index in its source, of ``indices`` (b,).
    """
    down, across = (length // SHIFTED for length in images.shape[1:3])

    def one(image: Array, index: Array) -> Array:
        flip, rows, columns = jax.random.split(jax.random.fold_in(key, index), 3)
        # With their dtypes, as 64-bit mode has others.
        image = jnp.where(jax.random.bernoulli(flip, np.float32(0.5)), image[:, ::-1], image)
        row = jax.random.randint(rows, (), 0, 2 * down + 1, jnp.int32)
        column = jax.random.randint(columns, (), 0, 2 * across + 1, jnp.int32)
        padded = jnp.pad(image, ((down, down), (across, across), (0, 0)))
        return jax.lax.dynamic_slice(padded, (row, column, jnp.int32(0)), image.shape)

    return jax.vmap(one)(images, indices)


def smoothed_cross_entropy(logits: Array, y: Array, smoothing: float) -> Array:
    """The cross-entropy of labels (b,) that share a part, ``smoothing``, with all classes alike, as PyTorch's.

    Example:
        >>> float(smoothed_cross_entropy(jnp.log(jnp.array([[1.0, 3.0]])), jnp.array([1]), 0.2)).__round__(4)
        0.3975
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    uniform = -jnp.mean(jax.nn.log_softmax(logits))
    return (1 - smoothing) * cross_entropy(logits, y) + smoothing * uniform


def build_resnet(config: ClassesConfig, classes: int) -> ResNet:
    """The network that ``config`` names, with random weights; ``ValueError`` for attention that cannot go there."""
    chosen = {} if config.attention == "none" else {"attention": config.attention}
    dtype, rngs = jnp.dtype(config.dtype), nnx.Rngs(config.seed)
    return create_resnet(config.network, classes, dtype=dtype, rngs=rngs, **chosen)


def load_pretrained(network: ResNet, path: str, names: str | None = None) -> list[str]:
    """Loads a checkpoint of PyTorch; a classifier or attention that does not fit starts anew, which the notes say.

    Raises ``ValueError`` where anything else does not fit, or the file is no checkpoint, or ``FileNotFoundError``.
    """
    rename = None if names is None else NAMES[names]
    gates = {found[0] for name in to_torch(network) if (found := ATTENTION.match(name))}
    parts = {"the classifier": ["fc"], "attention": sorted(gates)}
    for anew in ([], ["the classifier"], ["attention"], [*parts]):
        try:
            from_torch(network, path, rename=rename, skip=[place for part in anew for place in parts[part]])
        except ValueError as error:
            misfit = error
        else:
            return [f"{printable(path)} does not fit {' and '.join(anew)}, which start anew"] if anew else []
    raise ValueError(f"--pretrained {printable(path)}: {misfit}")


@dataclass(frozen=True)
class ClassesTask:
    """Square images, with one label each."""

    image_size: int
    augment: bool
    label_smoothing: float
    error = staticmethod(cross_entropy)
    is_right = staticmethod(is_largest)

    def loss(self, logits: Array, y: Array) -> Array:
        return smoothed_cross_entropy(logits, y, self.label_smoothing)

    def open(self, data: str) -> LabelledImages:
        return open_classes(data, self.image_size)

    def build(self, config: Any, source: Any) -> ResNet:
        """The network for these classes, from a checkpoint where one is named; its notes go to the source's."""
        height, width = source.shape
        places = math.ceil(height / SHRUNK) * math.ceil(width / SHRUNK)
        if config.batch_size * places < 2:  # BatchNorm needs two values in training
            raise ValueError(f"--batch-size must be at least 2 for images of {height}x{width}, got {config.batch_size}")
        network = build_resnet(config, source.classes)
        images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
        try:  # as a late map may be too small for windows
            nnx.eval_shape(lambda network, x: network(x), network, images)
        except ValueError as error:
            raise ValueError(f"--attention {config.attention} for images of {height}x{width}: {error}") from error
        if config.pretrained is not None:
            source.notes = (*source.notes, *load_pretrained(network, config.pretrained, config.names))
        return network

    def draw(self, inputs: Array, labels: Any, indices: Array, key: Array, *, training: bool) -> tuple[Array, Array]:
        x = normalised(inputs)
        return augmented(x, indices, key) if training and self.augment else x, labels

    def answer(self, network: Any, x: Array) -> Array:
        logits: Array = network(x)
        return logits
