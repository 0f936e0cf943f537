"""How well the maps of a network find the patches of test images."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from flax_attn.networks.patch import PatchNetwork

from ..config import PatchConfig
from ..data.source import PATCH
from ..devices import Layout
from ..tasks.patch import TEST, Patches, article_patches, paint, per_image_patches, split_key
from .maps import detector_maps
from .observe import MOST_BYTES, Named, Split, at_once, observe_split, over_batches

CELL = 4  # pixels along a side of a map's cell: the attended map lies behind two poolings
ACTIVATION, MEAN = "class_activation", "attended_mean"  # maps that every network has


@dataclass(frozen=True)
class Localisation:
    """The scores of one kind of map on a test split; NaN where nothing can be scored.

    Attributes:
        pointing: share of patches that hold their map's peak. Chance is a patch's share of the area, 0.028 at 96x96.
        energy: share of a map's positive part in the patch, relative to the patch's share of the area. Chance is 1.
        average_precision: of telling images with a patch by the height of their map's peak. Chance is their share.
        patched: number of images with a patch.
        images: number of images.
    """

    pointing: float
    energy: float
    average_precision: float
    patched: int
    images: int


def localise(
    network: PatchNetwork, images: Any, patches: Patches, *, batch_size: int = 32, most_bytes: int = MOST_BYTES
) -> dict[str, Localisation]:
    """Scores every map of ``network``: class activation, the attended map's mean over channels, and recorded maps.

    Args:
        network: any network of the patch task; applied in eval mode and left unchanged.
        images: uint8 (n, h, w, 3), or anything that gives such an array for an array of indices.
        patches: of these images, (n,).
        batch_size: images at a time; fewer where their records would take more than ``most_bytes``.
        most_bytes: of memory.
    """
    if not len(images) or len(images) != len(patches.label):
        raise ValueError(f"images must be {len(patches.label)}, one for each patch, got {len(images)}")
    _, height, width, _ = images[np.array([0])].shape
    batch_size = at_once(network, height, width, batch_size, most_bytes)

    def score_batch(model: Split, indices: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
        here = Patches(*(np.asarray(values)[indices] for values in patches))
        maps = _maps(model, layout.cut(images[indices]), jax.tree.map(layout.cut, here), network.token_order)
        return {name: score(np.asarray(values), here) for name, values in maps.items()}

    scores = over_batches(network, range(len(images)), batch_size, score_batch)
    return {name: combine(each, patches.label) for name, each in scores.items()}


@partial(jax.jit, static_argnames="token_order")
def _maps(model: Split, images: jax.Array, patches: Patches, token_order: str) -> Named:
    seen = observe_split(model, paint(images, patches))
    maps = {ACTIVATION: seen.activation, MEAN: seen.attended.mean(-1)}
    return maps | detector_maps(seen.recorded, seen.attended.shape, token_order)


def score(maps: np.ndarray, patches: Patches) -> np.ndarray:
    """Pointing, energy and peak (n, 3) of maps (n, h, w), as if every image had its patch."""
    n, height, width = maps.shape
    pixels = patch_pixels(patches, height * CELL, width * CELL)
    covered = pixels.reshape(n, height, CELL, width, CELL).mean((2, 4))
    return np.stack([pointing(maps, at_centres(pixels)), relative_energy(maps, covered), maps.max((1, 2))], axis=1)


def combine(scores: np.ndarray, label: Any) -> Localisation:
    """The scores of a split from those of its images (n, 3); label (n,) is 1 where there is a patch."""
    patched = np.asarray(label) == 1
    hits, energy = (float(each[patched].mean()) if patched.any() else math.nan for each in scores.T[:2])
    return Localisation(hits, energy, average_precision(scores[:, 2], patched), int(patched.sum()), len(patched))


def pointing(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The pointing game: 1 where the peak of a map (n, h, w) is ``inside`` (n, h, w), else 0; of equal peaks the share.

    Example:
        >>> maps = np.array([[[1, 9, 2]], [[9, 9, 2]], [[9, 1, 2]]])
        >>> pointing(maps, np.array([[[0, 1, 1]]] * 3) == 1).tolist()
        [1.0, 0.5, 0.0]
    """
    peaks = maps == maps.max((1, 2), keepdims=True)
    share: np.ndarray = (peaks & inside).sum((1, 2)) / peaks.sum((1, 2))
    return share


def relative_energy(maps: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The share of the energy of maps (n, h, w) that is ``covered`` (n, h, w), over the covered share of the area.

    Energy is the positive part, as in the energy-based pointing game (Wang et al., "Score-CAM", 2020).

    Example:
        >>> relative_energy(np.array([[[3.0, 1.0, -5.0, 0.0]]]), np.array([[[1.0, 0.0, 0.0, 0.0]]])).tolist()
        [3.0]
    """
    energy = np.maximum(maps.astype(np.float64), 0)
    total, within = energy.sum((1, 2)), (energy * covered).sum((1, 2))
    share: np.ndarray = np.divide(within, total, out=np.zeros_like(within), where=total != 0) / covered.mean((1, 2))
    return share


def average_precision(score: np.ndarray, label: np.ndarray) -> float:
    """The sum over thresholds of precision times recall gained, without interpolation; NaN where no label is 1.

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.7, 0.1]), np.array([1, 0, 1, 0])).__round__(4)
        0.8333
    """
    order = np.argsort(-score, kind="stable")
    score, found = score[order], np.cumsum(np.asarray(label)[order] == 1)
    if not len(found) or not found[-1]:
        return math.nan
    last = np.append(score[1:] != score[:-1], True)  # of each group of equal scores
    precision = (found / np.arange(1, len(found) + 1))[last]
    recall = found[last] / found[-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


_per_image_patches = jax.jit(per_image_patches, static_argnums=(2, 3))


def fixed_patches(config: PatchConfig, indices: np.ndarray, height: int, width: int) -> Patches:
    """The patches of a run's whole test split (n,), the same after every epoch, from the images' indices (n,)."""
    if config.patches == "article":  # the place in the batch decides
        patches = article_patches(config.batch_size, height, width)
        patches = jax.tree.map(lambda values: values[np.arange(len(indices)) % config.batch_size], patches)
    else:
        key = split_key(jax.random.key(config.seed), TEST, 0)
        patches = _per_image_patches(key, np.asarray(indices, np.int32), height, width)
    arrays: Any = map(np.asarray, patches)
    return Patches(*arrays)


def patch_pixels(patches: Patches, height: int, width: int) -> np.ndarray:
    """Which pixels (n, height, width) are of the patch; labels are ignored."""

    def along(start: Any, length: int) -> Any:
        from_start = np.arange(length) - np.asarray(start)[:, None]
        return (from_start >= 0) & (from_start < PATCH)

    pixels: np.ndarray = along(patches.row, height)[:, :, None] & along(patches.column, width)[:, None, :]
    return pixels


def at_centres(pixels: np.ndarray) -> np.ndarray:
    """The values of pixels (n, h, w) at the centres of a map's cells."""
    return pixels[:, CELL // 2 :: CELL, CELL // 2 :: CELL]
