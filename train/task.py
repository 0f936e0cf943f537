"""The patches of `train.tasks.patch`: half of the images get a white 16x16 one, and the network has to say which.

Where a patch is follows from (seed, split, epoch, image index), never from the batch or the device; or, by the
tutorial's rule, from the place in the batch alone. Patches are drawn where the step runs, from images that stay uint8.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .data.source import PATCH

TRAIN, TEST = 0, 1  # the splits, as numbers that go into a key
WHITE = 1.0  # brighter than any pixel: (255 - 128) / 128 is 0.992


class Patches(NamedTuple):
    """For each image of a batch, (b,): whether it has a patch, and the patch's first row and column."""

    label: jax.Array
    row: jax.Array
    column: jax.Array


def article_patches(batch_size: int, height: int, width: int) -> Patches:
    """The tutorial's draw, which starts numpy's generator anew with 10 + the place in the batch.

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


def per_image_patches(key: jax.Array, indices: jax.Array, height: int, width: int) -> Patches:
    """An independent draw per image: a patch with probability 1/2, its corner uniform over all places.

    Args:
        key: of a split and an epoch, from `split_key`.
        indices: (b,), of the images in their source.
        height: rows of the images.
        width: columns of the images.
    """

    def draw(index: jax.Array) -> Patches:
        label, row, column = jax.random.split(jax.random.fold_in(key, index), 3)
        # With their dtypes: in 64-bit mode the default ones are wider, and other numbers are drawn.
        return Patches(
            jax.random.bernoulli(label, np.float32(0.5)).astype(jnp.int32),
            jax.random.randint(row, (), 0, _corners(height), jnp.int32),
            jax.random.randint(column, (), 0, _corners(width), jnp.int32),
        )

    return jax.vmap(draw)(indices)


def split_key(key: jax.Array, split: int, epoch: jax.Array | int) -> jax.Array:
    """The key of all patches of a split in an epoch; the test split has one for all epochs."""
    return jax.random.fold_in(jax.random.fold_in(key, split), 0 if split == TEST else epoch)


def paint(images: jax.Array, patches: Patches) -> jax.Array:
    """Scales images to [-1, 1) and paints the patches.

    Args:
        images: uint8 (b, h, w, 3).
        patches: one per image.

    Returns:
        float32 (b, h, w, 3), (uint8 - 128) / 128, and 1.0 within patches.
    """
    x = (images.astype(jnp.float32) - 128) / 128
    inside_rows = _inside(patches.row, images.shape[1])
    inside_columns = _inside(patches.column, images.shape[2])
    patched = (patches.label == 1)[:, None, None] & inside_rows[:, :, None] & inside_columns[:, None, :]
    return jnp.where(patched[..., None], WHITE, x)


def _inside(start: jax.Array, length: int) -> jax.Array:
    place = jnp.arange(length)
    return (place >= start[:, None]) & (place < start[:, None] + PATCH)


def _corners(length: int) -> int:
    # Like the tutorial's 96 - 16, which leaves out the very last corner; an image as small as a patch has one.
    return max(length - PATCH, 1)
