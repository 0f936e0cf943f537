"""How well the maps of a network find the patches of test images."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from flax_attn.networks.patch import PatchNetwork

from ..config import Config
from ..data.batches import eval_batches
from ..data.source import PATCH
from ..devices import Layout
from ..tasks.patch import TEST, Patches, article_patches, paint, per_image_patches, split_key
from .maps import detector_maps
from .observe import at_once, observe_inside

CELL = 4  # pixels along a side of a map's cell: the attended map lies behind two poolings
ACTIVATION, MEAN = "class_activation", "attended_mean"  # maps that every network has


@dataclass(frozen=True)
class Localisation:
    """The scores of one kind of map on a test split; NaN where nothing can be scored.

    Attributes:
        pointing: share of images with a patch whose peak lies in the patch. Chance is the patch's share of the area,
            0.028 at 96x96.
        energy: share of the map's positive part that lies in the patch, relative to the patch's share of the area,
            averaged over images with a patch. Chance is 1; at most 36 at 96x96.
        average_precision: of telling images with a patch from those without by the height of the peak. Chance is the
            share of images with a patch.
        patched: number of images with a patch.
        images: number of images.
    """

    pointing: float
    energy: float
    average_precision: float
    patched: int
    images: int


class ImageScores(NamedTuple):
    """Scores of the maps of single images, (n,) each."""

    pointing: np.ndarray
    energy: np.ndarray
    peak: np.ndarray


def localise(network: PatchNetwork, images: Any, patches: Patches, *, batch_size: int = 32) -> dict[str, Localisation]:
    """Scores every map of ``network``: class activation, the attended map's mean over channels, and recorded maps.

    Args:
        network: any network of the patch task; applied in eval mode and left unchanged.
        images: uint8 (n, h, w, 3), or anything that gives such an array for an array of indices.
        patches: of these images, (n,).
        batch_size: images at a time; fewer where their records would take too much memory.

    Raises:
        ValueError: no images, or not one patch for each.
    """
    if not len(images) or len(images) != len(patches.label):
        raise ValueError(f"images must be {len(patches.label)}, one for each patch, got {len(images)}")
    _, height, width, _ = images[np.array([0])].shape
    batch_size = at_once(network, height, width, batch_size)
    layout = Layout(batch_size)
    graph, state = nnx.split(network)
    state = layout.copy(state)
    scored: dict[str, list[ImageScores]] = {}
    for indices, real in eval_batches(range(len(images)), batch_size):
        here = Patches(*(np.asarray(values)[indices] for values in patches))
        for name, maps in _maps(graph, state, layout.cut(images[indices]), layout.cut(here)).items():
            each = score(np.asarray(maps), here)
            scored.setdefault(name, []).append(ImageScores(*(array[real] for array in each)))
    label = np.asarray(patches.label)
    return {
        name: combine(ImageScores(*map(np.concatenate, zip(*parts, strict=True))), label)
        for name, parts in scored.items()
    }


@jax.jit
def _maps(
    graph: nnx.GraphDef[PatchNetwork], state: nnx.State, images: jax.Array, patches: Patches
) -> dict[str, jax.Array]:
    network = nnx.merge(graph, state, copy=True)
    seen = observe_inside(network, paint(images, patches))
    maps = {ACTIVATION: seen.activation, MEAN: seen.attended.mean(-1)}
    return maps | detector_maps(seen.recorded, seen.attended.shape, network.token_order)


def score(maps: np.ndarray, patches: Patches) -> ImageScores:
    """Scores maps (n, h, w) as if every image had its patch; `combine` looks at the labels."""
    height, width = maps.shape[1:]
    return ImageScores(
        pointing(maps, centres_inside(patches, height, width)),
        relative_energy(maps, coverage(patches, height, width)),
        maps.max((1, 2)),
    )


def combine(scores: ImageScores, label: np.ndarray) -> Localisation:
    """The scores of a split from those of its images; label (n,) is 1 where there is a patch."""
    patched = label == 1
    means = (float(values[patched].mean()) if patched.any() else float("nan") for values in scores[:2])
    return Localisation(*means, average_precision(scores.peak, label), int(patched.sum()), len(patched))


def pointing(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The pointing game: 1 where the peak of a map (n, h, w) is ``inside`` (n, h, w), else 0.

    Where several cells share the maximum, the share of them that is inside, so that a constant map scores chance.

    Example:
        >>> maps = np.array([[[1, 9, 2]], [[9, 9, 2]], [[9, 1, 2]]])
        >>> pointing(maps, np.array([[[0, 1, 1]]] * 3) == 1).tolist()
        [1.0, 0.5, 0.0]
    """
    peaks = maps == maps.max((1, 2), keepdims=True)
    return (peaks & inside).sum((1, 2)) / peaks.sum((1, 2))


def relative_energy(maps: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The share of the energy of maps (n, h, w) that is ``covered`` (n, h, w), over the covered share of the area.

    Energy is the positive part of a map, as in the energy-based pointing game (Wang et al., "Score-CAM", 2020); a map
    without any scores 0.

    Example:
        >>> relative_energy(np.array([[[3.0, 1.0, -5.0, 0.0]]]), np.array([[[1.0, 0.0, 0.0, 0.0]]])).tolist()
        [3.0]
    """
    energy = np.maximum(maps.astype(np.float64), 0)
    total, within = energy.sum((1, 2)), (energy * covered).sum((1, 2))
    share = np.divide(within, total, out=np.zeros_like(within), where=total != 0)
    return share / covered.mean((1, 2))


def average_precision(score: np.ndarray, label: np.ndarray) -> float:
    """The sum over thresholds of precision times recall gained, without interpolation; NaN without positives.

    Args:
        score: (n,), higher where a patch is more likely; equal scores share a threshold.
        label: (n,), 1 where there is a patch.

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.7, 0.1]), np.array([1, 0, 1, 0])).__round__(4)
        0.8333
    """
    order = np.argsort(-score, kind="stable")
    score, found = score[order], np.cumsum(np.asarray(label)[order] == 1)
    if not len(found) or not found[-1]:
        return float("nan")
    last = np.append(score[1:] != score[:-1], True)  # of each group of equal scores
    precision = (found / np.arange(1, len(found) + 1))[last]
    recall = found[last] / found[-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


_per_image_patches = jax.jit(per_image_patches, static_argnums=(2, 3))


def fixed_patches(config: Config, indices: np.ndarray, height: int, width: int) -> Patches:
    """The patches of the whole test split of a run, (n,) each, the same after every epoch.

    Args:
        config: patches, seed and batch_size are read.
        indices: (n,), of the test images in their source.
        height: of the images.
        width: of the images.
    """
    if config.patches == "article":  # the place in the batch decides
        patches = article_patches(config.batch_size, height, width)
        patches = jax.tree.map(lambda values: values[np.arange(len(indices)) % config.batch_size], patches)
    else:
        key = split_key(jax.random.key(config.seed), TEST, 0)
        patches = _per_image_patches(key, np.asarray(indices, np.int32), height, width)
    return Patches(*map(np.asarray, patches))


def centres_inside(patches: Patches, height: int, width: int) -> np.ndarray:
    """Which cells of maps (n, height, width) have their centre in the patch; labels are ignored.

    Example:
        >>> centres_inside(Patches(*np.array([[1], [3], [2]])), 6, 5)[0].astype(int)
        array([[0, 0, 0, 0, 0],
               [1, 1, 1, 1, 0],
               [1, 1, 1, 1, 0],
               [1, 1, 1, 1, 0],
               [1, 1, 1, 1, 0],
               [0, 0, 0, 0, 0]])
    """

    def inside(start: np.ndarray, cells: int) -> np.ndarray:
        centre = np.arange(cells) * CELL + CELL // 2
        return (start[:, None] <= centre) & (centre < start[:, None] + PATCH)

    return inside(patches.row, height)[:, :, None] & inside(patches.column, width)[:, None, :]


def coverage(patches: Patches, height: int, width: int) -> np.ndarray:
    """How much of every cell of maps (n, height, width) the patch covers, from 0 to 1."""

    def overlap(start: np.ndarray, cells: int) -> np.ndarray:
        first = np.arange(cells) * CELL
        shared = np.minimum(first + CELL, start[:, None] + PATCH) - np.maximum(first, start[:, None])
        return np.maximum(shared, 0) / CELL

    return overlap(patches.row, height)[:, :, None] * overlap(patches.column, width)[:, None, :]
