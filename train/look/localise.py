"""The scores of all maps of a network over images with known patches."""

from typing import Any

import jax
import numpy as np
from flax import nnx

from flax_attn.networks.patch import PatchNetwork

from ..data.batches import eval_batches
from ..devices import Layout
from ..tasks.patch import Patches, paint
from .maps import detector_maps
from .observe import at_once, observe_inside
from .scores import ImageScores, Localisation, combine, judge

ACTIVATION, MEAN = "class_activation", "attended_mean"  # the maps that every network has


def localise(network: PatchNetwork, images: Any, patches: Patches, *, batch_size: int = 32) -> dict[str, Localisation]:
    """Scores every map that ``network`` has to show.

    Args:
        network: a network of the patch task with any block; judged in eval mode and left as it is.
        images: uint8 (n, h, w, 3), or anything that gives such an array for an array of indices; at least one.
        patches: of these images, (n,).
        batch_size: images at a time, fewer where what blocks record of so many would take too much memory.

    Returns:
        ``class_activation``, ``attended_mean`` (the attended map's mean over channels, which says little where a block
        ends in a LayerNorm: that takes the mean away), and the maps of attention blocks by path, see
        `train.look.maps.detector_maps`.

    Raises:
        ValueError: no images, or not one patch for each.
    """
    if not len(images) or len(images) != len(patches.label):
        raise ValueError(f"images must be {len(patches.label)}, one for each patch, got {len(images)}")
    height, width = images[np.array([0])].shape[1:3]
    batch_size = at_once(network, height, width, batch_size)
    layout = Layout(batch_size)
    graph, state = nnx.split(network)
    state = layout.copy(state)
    judged: dict[str, list[ImageScores]] = {}
    for indices, real in eval_batches(range(len(images)), batch_size):
        here = Patches(*(np.asarray(values)[indices] for values in patches))
        maps = _maps(graph, state, layout.cut(images[indices]), layout.cut(here))
        for name, values in maps.items():
            each = judge(np.asarray(values), here)
            judged.setdefault(name, []).append(ImageScores(*(array[real] for array in each)))
    return {name: _together(parts, patches) for name, parts in judged.items()}


def _together(parts: list[ImageScores], patches: Patches) -> Localisation:
    return combine(ImageScores(*map(np.concatenate, zip(*parts, strict=True))), np.asarray(patches.label))


@jax.jit
def _maps(
    graph: nnx.GraphDef[PatchNetwork], state: nnx.State, images: jax.Array, patches: Patches
) -> dict[str, jax.Array]:
    network = nnx.merge(graph, state, copy=True)
    seen = observe_inside(network, paint(images, patches))
    maps = {ACTIVATION: seen.activation, MEAN: seen.attended.mean(-1)}
    return maps | detector_maps(seen.recorded, seen.attended.shape, network.token_order)
