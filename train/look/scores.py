"""How well the maps of a network find the patches of test images."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from flax_attn.networks.patch import PatchNetwork

from ..config import PatchConfig
from ..data import Source
from ..devices import Layout
from ..tasks.patch import TEST, WHITE, Patches, article_patches, paint, painted, per_image_patches, split_key
from .maps import detector_maps
from .observe import Named, Split, observe, over_batches

CELL = 4  # pixels along a side of a map's cell: the attended map lies behind two poolings
CENTRES = np.s_[:, CELL // 2 :: CELL, CELL // 2 :: CELL]  # of cells, in pixels (n, h, w)
AT_ONCE = 8 * 96 * 96  # pixels: the token weights of an image of 256x256 in 4 heads take 256 MiB
ACTIVATION, MEAN = "class_activation", "attended_mean"  # maps that every network has


@dataclass(frozen=True)
class Localisation:
    """The scores of one kind of map on a test split; NaN where nothing can be scored."""

    pointing: float  # share of patches that hold the map's peak; chance: a patch's share of the area
    energy: float  # share of the map's positive part in the patch, over the patch's share of the area; chance: 1
    average_precision: float  # of finding images with a patch by the height of the peak; chance: their share
    patched: int  # images with a patch
    images: int


def localise(network: PatchNetwork, source: Source, patches: Patches) -> dict[str, Localisation]:
    """Scores every map of ``network``: class activation, the attended map's mean over channels, and recorded maps.

    ``patches`` are those of the test images of ``source``.
    """

    def score_batch(model: Split, indices: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
        here = Patches(*(values[indices - source.test.start] for values in patches))
        maps = _maps(model, layout.cut(source.read(indices)), jax.tree.map(layout.cut, here), network.token_order)
        return {name: score(np.asarray(values), here) for name, values in maps.items()}

    scores = over_batches(network, source.test, max(1, AT_ONCE // math.prod(source.shape)), score_batch)
    return {name: combine(each, patches.label) for name, each in scores.items()}


@partial(jax.jit, static_argnames="token_order")
def _maps(model: Split, images: jax.Array, patches: Patches, token_order: str) -> Named:
    seen = observe(model, paint(images, patches))
    maps = {ACTIVATION: seen.activation, MEAN: seen.attended.mean(-1)}
    return maps | detector_maps(seen.recorded, seen.attended.shape, token_order)


def score(maps: np.ndarray, patches: Patches) -> np.ndarray:
    """Pointing, energy and peak (n, 3) of maps (n, h, w), as if every image had its patch."""
    n, height, width = maps.shape
    black = np.zeros((n, height * CELL, width * CELL, 1), np.uint8)
    pixels = (np.asarray(painted(black, Patches(np.ones(n, int), *patches[1:]))) == WHITE).all(-1)
    covered = pixels.reshape(n, height, CELL, width, CELL).mean((2, 4))
    return np.stack([pointing(maps, pixels[CENTRES]), relative_energy(maps, covered), maps.max((1, 2))], axis=1)


def combine(scores: np.ndarray, label: Any) -> Localisation:
    """The scores of a split from those of its images (n, 3); label (n,) is 1 where there is a patch."""
    patched = np.asarray(label) == 1
    hits, energy = (float(each[patched].mean()) if patched.any() else math.nan for each in scores.T[:2])
    return Localisation(hits, energy, average_precision(scores[:, 2], patched), int(patched.sum()), len(patched))


def pointing(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The pointing game: 1 where the peak of a map (n, h, w) is ``inside`` (n, h, w), else 0; of ties the share."""
    peaks = maps == maps.max((1, 2), keepdims=True)
    return np.asarray((peaks & inside).sum((1, 2)) / peaks.sum((1, 2)))


def relative_energy(maps: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The share of the energy of maps (n, h, w) that is ``covered`` (n, h, w), over the covered share of the area.

    Energy is the positive part, as in the energy-based pointing game (Wang et al., "Score-CAM", 2020).
    """
    energy = np.maximum(maps.astype(np.float64), 0)
    total, within = energy.sum((1, 2)), (energy * covered).sum((1, 2))
    return np.asarray(np.divide(within, total, out=np.zeros_like(within), where=total != 0) / covered.mean((1, 2)))


def average_precision(score: np.ndarray, label: np.ndarray) -> float:
    """The sum over thresholds of precision times recall gained, without interpolation; NaN where no label is 1."""
    order = np.argsort(-score, kind="stable")
    score, found = score[order], np.cumsum(np.asarray(label)[order] == 1)
    if not len(found) or not found[-1]:
        return math.nan
    last = np.append(score[1:] != score[:-1], True)  # of each group of equal scores
    precision = (found / np.arange(1, len(found) + 1))[last]
    recall = found[last] / found[-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def fixed_patches(config: PatchConfig, source: Source) -> Patches:
    """The patches of a run's whole test split (n,), the same after every epoch."""
    if config.patches == "article":  # the place in the batch decides
        patches = article_patches(config.batch_size, *source.shape)
    else:
        key, indices = split_key(jax.random.key(config.seed), TEST, 0), np.asarray(source.test, np.int32)
        patches = jax.jit(per_image_patches, static_argnums=(2, 3))(key, indices, *source.shape)
    return Patches(*(np.resize(values, len(source.test)) for values in patches))
