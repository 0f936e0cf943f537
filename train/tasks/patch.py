"""The patch task: does an image hold a white patch?

Patches are drawn independently for each image from (seed, epoch, image index), so that they do not depend on the batch
or the device; or, by the tutorial's rule, from the place in the batch alone. They are drawn inside the step, on images
that are stored as uint8.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import flax_attn
from flax_attn.networks.patch import CHANNELS, PatchNetwork, create_position
from flax_attn.registry import find_block

from ..config import PatchConfig
from ..data import Source, open_source
from ..data.source import PATCH

WHITE = 1.0  # brighter than any pixel: (255 - 128) / 128 is 0.992
TRAIN, TEST = 0, 1  # the splits, as numbers that go into a key
TINY = 1e-8  # keeps the logarithms of the loss finite


class Patches(NamedTuple):
    """For each image of a batch, (b,): whether it has a patch, and its first row and column; of JAX or of numpy."""

    label: Any
    row: Any
    column: Any


def split_key(key: Array, split: int, epoch: Array | int) -> Array:
    """The key for what is drawn for a split in an epoch; the test split has one for all epochs."""
    return jax.random.fold_in(jax.random.fold_in(key, split), 0 if split == TEST else epoch)


def article_patches(batch_size: int, height: int, width: int) -> Patches:
    """The tutorial's draw, which seeds numpy's generator with 10 + the place in the batch.

    Example:
        >>> article_patches(10, 96, 96).label.tolist()
        [1, 1, 1, 0, 1, 0, 1, 1, 0, 1]
    """
    drawn = np.zeros((batch_size, 3), np.int32)
    for place in range(batch_size):
        random = np.random.RandomState(place + 10)
        if random.randint(2):
            drawn[place] = 1, random.randint(_corners(height)), random.randint(_corners(width))
    return Patches(*jnp.asarray(drawn.T))


def per_image_patches(key: Array, indices: Array, height: int, width: int) -> Patches:
    """Draws a patch with probability 1/2, its corner uniform, by a key of `split_key` and the images' indices (b,)."""

    def draw(index: Array) -> Patches:
        label, row, column = jax.random.split(jax.random.fold_in(key, index), 3)
        # With their dtypes: in 64-bit mode the default ones are wider, and other numbers are drawn.
        return Patches(
            jax.random.bernoulli(label, np.float32(0.5)).astype(jnp.int32),
            jax.random.randint(row, (), 0, _corners(height), jnp.int32),
            jax.random.randint(column, (), 0, _corners(width), jnp.int32),
        )

    return jax.vmap(draw)(indices)


def paint(images: Array, patches: Patches) -> Array:
    """Scales images, uint8 (b, h, w, 3), to (uint8 - 128) / 128 in float32, with 1.0 inside the patches."""

    def inside(start: Array, length: int) -> Array:
        place = jnp.arange(length)[None]
        return (place >= start[:, None]) & (place < start[:, None] + PATCH)

    _, height, width, _ = images.shape
    rows, columns = inside(patches.row, height), inside(patches.column, width)
    patched = (patches.label == 1)[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return jnp.where(patched[..., None], WHITE, (images.astype(jnp.float32) - 128) / 128)


painted = jax.jit(paint)  # compiled as a whole: op by op, each would be compiled on its own


def _corners(length: int) -> int:
    # Like the tutorial's 96 - 16, which leaves out the very last corner; an image as small as a patch has one.
    return max(length - PATCH, 1)


def build_network(config: PatchConfig, height: int, width: int) -> PatchNetwork:
    """Builds the network that ``config`` names, for images of this size, in training mode.

    Example:
        >>> type(build_network(PatchConfig(network="eca"), 96, 96).attn1).__name__
        'EfficientChannelAttention'
    """
    size = (height // 4, width // 4)  # of the attended map, behind two poolings
    rngs, dtype = nnx.Rngs(config.seed), jnp.dtype(config.dtype)
    if config.network == "cnn":
        return PatchNetwork(dtype=dtype, rngs=rngs)
    token_order, position = "pixels", None
    # The position, then the block, then the rest: a seed's initial weights depend on this order.
    if find_block(config.network).over_tokens:
        named = None if config.position == "none" else config.position
        token_order, position = config.token_order, create_position(named, *size, dtype=dtype, rngs=rngs)
    block = flax_attn.create_block(config.network, CHANNELS, size=size, dtype=dtype, rngs=rngs)
    return PatchNetwork(block, token_order, position, dtype=dtype, rngs=rngs)


def mean_error(p: Array, y: Array, where: Array | None = None) -> Array:
    """The tutorial's binary cross-entropy, ``-mean(y log(p + 1e-8) + (1 - y) log(1 - p + 1e-8))``.

    Example:
        >>> float(mean_error(jnp.array([1.0, 0.5]), jnp.array([1.0, 0.0]))).__round__(4)
        0.3466
    """
    p = p.astype(jnp.promote_types(p.dtype, jnp.float32))
    # One logarithm, of the probability of the truth, as the other has weight 0. XLA turns 1 - p + 1e-8 into
    # (1 + 1e-8) - p, which is 0 for p = 1 in float32, and then 0 * log(0) is NaN.
    truth = jnp.where(y == 1, p, 1 - p)
    return -jnp.mean(jnp.log(truth + TINY), where=where)


def is_right(p: Array, y: Array) -> Array:
    return jnp.round(p) == y


@dataclass(frozen=True)
class PatchTask:
    """Half of the images get a patch, and the network says which: p is the probability that there is one."""

    patches: str  # their rule, "per_image" or "article"
    loss = error = staticmethod(mean_error)
    is_right = staticmethod(is_right)

    def open(self, data: str) -> Source:
        return open_source(data)

    def build(self, config: Any, source: Any) -> PatchNetwork:
        return build_network(config, *source.shape)

    def draw(self, inputs: Array, labels: Any, indices: Array, key: Array, *, training: bool) -> tuple[Array, Array]:
        """Paints patches by the rule on images, uint8 (b, h, w, 3); y is 1 where there is one, else 0."""
        batch_size, height, width, _ = inputs.shape
        if self.patches == "article":
            patches = article_patches(batch_size, height, width)
        else:
            patches = per_image_patches(key, indices, height, width)
        return paint(inputs, patches), patches.label.astype(jnp.float32)

    def answer(self, network: Any, x: Array) -> Array:
        p: Array = network(x)[0]
        return p
