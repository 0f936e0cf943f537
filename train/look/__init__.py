"""Shows and scores where a trained network attends.

`maps` turns whatever a block records into maps over places; `scores` scores them, `picture` draws them, and `classes`
does both for the tasks with classes. Nothing here knows one block from another.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from flax_attn.networks.patch import PatchNetwork

from ..config import Config, PatchConfig
from ..data.source import PATCH, Source
from ..plots import save
from ..runs import write_whole
from ..tasks import Task
from ..tasks.patch import Patches, painted
from .classes import finish_classes
from .grid import ATTENTION, ROWS, Caption, in_turn
from .picture import draw_images, look
from .scores import ACTIVATION, Localisation, fixed_patches, localise

SCORES = "localisation.json"


def finish(folder: Path, config: Config, task: Task, network: Any, source: Any) -> list[str]:
    """Writes scores and pictures of a trained network into its run folder; returns lines about them."""
    if not isinstance(config, PatchConfig):
        return finish_classes(folder, config, task, network, source)
    height, width = source.shape
    patches = fixed_patches(config, source)
    scores = localise(network, source, patches)
    save_scores(folder / SCORES, scores, height, width)
    save_attention(folder / ATTENTION, config, network, source, patches)
    found = scores[ACTIVATION]
    return [
        f"class activation map: peak in the patch in {found.pointing:.3f} of {found.patched} test images with one "
        f"(chance: {PATCH * PATCH / (height * width):.3f}), energy there {found.energy:.1f} times its share of the "
        f"area, average precision {found.average_precision:.3f}"
    ]


def save_scores(path: Path, scores: dict[str, Localisation], height: int, width: int) -> None:
    """Writes scores and the images' size as JSON; NaN becomes null."""
    plain = {
        name: {key: None if math.isnan(value) else value for key, value in dataclasses.asdict(each).items()}
        for name, each in scores.items()
    }
    write_whole(path, json.dumps({"image_size": [height, width], "maps": plain}, indent=2) + "\n")


def save_attention(path: Path, config: PatchConfig, network: PatchNetwork, source: Source, patches: Patches) -> None:
    """Draws six images of the last full test batch: the tutorial's choice, or with a patch and without in turn."""
    start = max(len(patches.label) // config.batch_size - 1, 0) * config.batch_size
    label = patches.label[start : start + config.batch_size]
    chosen = start + (np.arange(len(label))[:ROWS] if config.patches == "article" else in_turn(label == 0))
    x = np.asarray(painted(source.read(source.test.start + chosen), Patches(*(values[chosen] for values in patches))))
    looked = look(network, x)
    order = " (tokens in article order)" if network.token_order == "article" else ""
    title = f"{config.network}: test images and the maps of the network{order}"
    captions = []
    for p, label in zip(looked.answer, patches.label[chosen], strict=True):
        wrong = bool(np.round(p) != label)
        text = f"{'patch' if label else 'no patch'}, p = {p:.3f}" + (", wrong" if wrong else "")
        captions.append(Caption(text, wrong))
    save(draw_images(title, x, captions, looked), path)
