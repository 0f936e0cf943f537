"""What a run leaves behind for looking at: ``localisation.json`` and ``attention.png``."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_attn.networks.patch import PatchNetwork

from ..config import Config
from ..data import Source
from ..data.source import PATCH
from ..data.stream import as_data_errors
from ..runs import write_whole
from ..tasks.patch import Patches
from .columns import look
from .localise import ACTIVATION, localise
from .picture import ATTENTION, Caption, draw
from .places import fixed_patches, painted
from .scores import Localisation

ROWS = 6
SCORES = "localisation.json"


class HeldOutImages:
    """The images of a source's test split, read when they are asked for; one that cannot be is a `DataError`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source.test)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        with as_data_errors():
            return self._source.read(np.asarray(self._source.test)[indices])


def finish(folder: Path, config: Config, network: PatchNetwork, source: Source) -> str:
    """Scores a trained network's maps on the test split and draws some; both go into ``folder``.

    Returns:
        A line about the scores of the class activation map.
    """
    height, width = source.shape
    images, patches = HeldOutImages(source), fixed_patches(config, np.asarray(source.test), height, width)
    scores = localise(network, images, patches, batch_size=config.batch_size)
    save_scores(folder / SCORES, scores, height, width)
    save_attention(folder / ATTENTION, config, network, images, patches)
    return in_a_line(scores[ACTIVATION], height, width)


def save_scores(path: Path, scores: Mapping[str, Localisation], height: int, width: int) -> None:
    """Writes scores and the images' size as JSON; what is NaN becomes null."""
    plain = {
        name: {key: None if math.isnan(value) else value for key, value in dataclasses.asdict(each).items()}
        for name, each in scores.items()
    }
    write_whole(path, json.dumps({"image_size": [height, width], "maps": plain}, indent=2) + "\n")


def in_a_line(scores: Localisation, height: int, width: int) -> str:
    """What is shown when a run on images of this size ends."""
    chance = PATCH * PATCH / (height * width)
    return (
        f"class activation map: peak in the patch in {scores.pointing:.3f} of {scores.patched} test images with one "
        f"(chance: {chance:.3f}), "
        f"energy there {scores.energy:.1f} times its share of the area, "
        f"average precision {scores.average_precision:.3f}"
    )


def save_attention(path: Path, config: Config, network: PatchNetwork, images: Any, patches: Patches) -> None:
    """Draws six images of the last full test batch.

    Args:
        path: of the picture.
        config: for the title, the size of a batch, and the choice of images: the first six under the tutorial's rule of
            patches, else by turns with a patch and without.
        network: the one that is looked at.
        images: of the whole test split, uint8, an array or what gives one for an array of indices.
        patches: of these images.
    """
    start = max(len(images) // config.batch_size - 1, 0) * config.batch_size
    label = patches.label[start : start + config.batch_size]
    chosen = start + choose(label, in_order=config.patches == "article")
    x = np.asarray(painted(images[chosen], Patches(*(values[chosen] for values in patches))))
    p, columns = look(network, x)
    title = f"{config.network}: test images and what the network makes of them"
    if config.network == "multi_head":
        title += f" (tokens: {config.token_order})"
    captions = [_caption(p, y) for p, y in zip(p, patches.label[chosen], strict=True)]
    draw(path, title, x, captions, columns)


def choose(y: np.ndarray, *, in_order: bool) -> np.ndarray:
    """Which images of a batch are shown.

    Example:
        >>> choose(np.array([0, 0, 1, 1, 0, 1, 1, 0]), in_order=False).tolist()
        [2, 0, 3, 1, 5, 4]
    """
    if in_order:
        return np.arange(len(y))[:ROWS]
    # The nth with a patch and the nth without take turns.
    turn = np.where(y == 1, np.cumsum(y == 1), np.cumsum(y == 0))
    return np.lexsort((y == 0, turn))[:ROWS]


def _caption(p: float, label: int) -> Caption:
    wrong = bool(np.round(p) != label)
    return Caption(f"{'patch' if label else 'no patch'}, p = {p:.3f}" + (", wrong" if wrong else ""), wrong)
