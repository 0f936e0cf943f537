"""How well maps find patches. Numpy alone: a map is a map, whatever drew it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..tasks.patch import Patches
from .places import centres_inside, coverage


@dataclass(frozen=True)
class Localisation:
    """What a kind of map comes to on a test split; NaN where there is nothing to judge.

    Attributes:
        pointing: the share of images with a patch whose peak lies in the patch. Chance is the patch's share of the
            area, 0.028 at 96x96.
        energy: the share of the map's positive part that lies in the patch, over the patch's share of the area,
            averaged over images with a patch. Chance is 1; all of it in the patch is 36 at 96x96.
        average_precision: of telling images with a patch from those without by the height of the peak. Chance is the
            share of images with a patch.
        patched: how many images have a patch.
        images: how many there are.
    """

    pointing: float
    energy: float
    average_precision: float
    patched: int
    images: int


class ImageScores(NamedTuple):
    """Per image (n,), of its map: the share of the peak in the patch, the energy there, and the peak's height."""

    hit: np.ndarray
    energy: np.ndarray
    peak: np.ndarray


def judge(maps: np.ndarray, patches: Patches) -> ImageScores:
    """Judges maps (n, h, w) as if every image had the patch that is given for it."""
    size = maps.shape[1:]
    peak = maps.max((1, 2))
    return ImageScores(
        pointing(maps, centres_inside(patches, *size)),
        relative_energy(maps, coverage(patches, *size)),
        peak,
    )


def combine(judged: ImageScores, label: np.ndarray) -> Localisation:
    """The scores of a split from those of its images, label (n,) being 1 where there is a patch."""
    patched = np.asarray(label) == 1
    return Localisation(
        _mean(judged.hit[patched]),
        _mean(judged.energy[patched]),
        average_precision(judged.peak, patched),
        int(patched.sum()),
        len(patched),
    )


def pointing(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The pointing game: 1 where a map's peak has its centre in the patch, else 0.

    Where several cells share the maximum, the share of them that does: what picking one by lot would give on average.
    A constant map gets chance and no more.

    Args:
        maps: (n, h, w).
        inside: (n, h, w), from `train.look.places.centres_inside`.

    Example:
        >>> maps = np.array([[[1, 9, 2]], [[9, 9, 2]], [[9, 1, 2]]])
        >>> pointing(maps, np.array([[[0, 1, 1]]] * 3) == 1).tolist()
        [1.0, 0.5, 0.0]
    """
    peaks = maps == maps.max((1, 2), keepdims=True)
    return (peaks & inside).sum((1, 2)) / peaks.sum((1, 2))


def relative_energy(maps: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The share of a map's energy that lies in the patch, over the patch's share of the map's area.

    Energy is the positive part, as in the energy-based pointing game (Wang et al., "Score-CAM", 2020): of a class
    activation map, what speaks for the class. A map that is positive nowhere has found nothing and gets 0.

    Args:
        maps: (n, h, w).
        covered: (n, h, w), from `train.look.places.coverage`.

    Example:
        >>> relative_energy(np.array([[[3.0, 1.0, -5.0, 0.0]]]), np.array([[[1.0, 0.0, 0.0, 0.0]]])).tolist()
        [3.0]
    """
    energy = np.maximum(maps.astype(np.float64), 0)
    total, within = energy.sum((1, 2)), (energy * covered).sum((1, 2))
    share = np.divide(within, total, out=np.zeros_like(within), where=total != 0)
    return share / covered.mean((1, 2))


def average_precision(score: np.ndarray, label: np.ndarray) -> float:
    """The sum over thresholds of precision times the recall gained, without interpolation; equal scores go together.

    Args:
        score: (n,), higher where a patch is more likely.
        label: (n,), 1 or True where there is one.

    Returns:
        NaN if there is none at all.

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


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
