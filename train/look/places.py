"""Where test patches are, in pixels and in cells of a map."""

import jax
import numpy as np

from ..config import Config
from ..data.source import PATCH
from ..tasks.patch import TEST, Patches, article_patches, paint, per_image_patches, split_key

painted = jax.jit(paint)  # at once: op by op each would be compiled for itself
_per_image_patches = jax.jit(per_image_patches, static_argnums=(2, 3))

CELL = 4  # pixels along each side of a map's cell: two poolings lie before the attended map


def fixed_patches(config: Config, indices: np.ndarray, height: int, width: int) -> Patches:
    """The patches that the test images of a run have, after every epoch the same.

    Args:
        config: read are patches, seed and batch_size.
        indices: (n,), of the images in their source; the whole test split, in order: under the tutorial's rule it is
            the place in the batch that counts.
        height: rows of the images.
        width: columns of the images.

    Returns:
        Numpy arrays (n,).
    """
    if config.patches == "article":
        patches = article_patches(config.batch_size, height, width)
        patches = jax.tree.map(lambda values: values[np.arange(len(indices)) % config.batch_size], patches)
    else:
        key = split_key(jax.random.key(config.seed), TEST, 0)
        patches = _per_image_patches(key, np.asarray(indices, np.int32), height, width)
    return Patches(*map(np.asarray, patches))


def centres_inside(patches: Patches, height: int, width: int) -> np.ndarray:
    """Which cells of maps (n, height, width) have their centre in the patch: (n, height, width).

    Cell i covers the pixels from 4i up to 4i + 4, and its centre 4i + 2 lies in a patch that begins at row r if
    r <= 4i + 2 < r + 16. So a patch has 4 by 4 cells wherever it lies. Labels are not looked at.

    Example:
        >>> centres_inside(Patches(*np.array([[1], [3], [2]])), 6, 7)[0].astype(int)
        array([[0, 0, 0, 0, 0, 0, 0],
               [1, 1, 1, 1, 0, 0, 0],
               [1, 1, 1, 1, 0, 0, 0],
               [1, 1, 1, 1, 0, 0, 0],
               [1, 1, 1, 1, 0, 0, 0],
               [0, 0, 0, 0, 0, 0, 0]])
    """
    rows, columns = (_centre_inside(start, cells) for start, cells in ((patches.row, height), (patches.column, width)))
    return rows[:, :, None] & columns[:, None, :]


def coverage(patches: Patches, height: int, width: int) -> np.ndarray:
    """How much of every cell of maps (n, height, width) the patch covers, from 0 to 1."""
    rows, columns = (_overlap(start, cells) for start, cells in ((patches.row, height), (patches.column, width)))
    return rows[:, :, None] * columns[:, None, :]


def _centre_inside(start: np.ndarray, cells: int) -> np.ndarray:
    centre = np.arange(cells) * CELL + CELL // 2
    return (start[:, None] <= centre) & (centre < start[:, None] + PATCH)


def _overlap(start: np.ndarray, cells: int) -> np.ndarray:
    first = np.arange(cells) * CELL
    shared = np.minimum(first + CELL, start[:, None] + PATCH) - np.maximum(first, start[:, None])
    return np.maximum(shared, 0) / CELL
