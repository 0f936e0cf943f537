"""Where a ResNet looks: the class activation of the class that it predicts, and the gates with a value per place."""

from functools import partial
from typing import Any

import jax
import numpy as np

from ..tasks.classes import normalised
from .grid import Column
from .maps import detector_maps, kind_of
from .observe import Named, Split, observe, over_batches
from .picture import Looked


@jax.jit
def _see(model: Split, images: jax.Array) -> Named:
    """The logits, the class activation, and means over channels of the gates of each stage's last block."""
    seen = observe(model, normalised(images))
    found = {"logits": seen.answer, "activation": seen.activation}
    for path, array in seen.recorded.items():
        if kind_of(path) == "gate":
            stage, *_, name = path.split(".")
            found |= {f"{stage}: {name}": values for values in detector_maps({path: array}, array.shape).values()}
    return found


def see(network: Any, images: np.ndarray) -> Looked:
    """Applies a network to images, uint8 (b, h, w, 3), one at a time: what blocks record takes memory."""
    found = over_batches(network, range(len(images)), 1, lambda model, indices, _: _see(model, images[indices]))
    logits, activation = found.pop("logits"), found.pop("activation")
    on_image = partial(Column, extent=(0, images.shape[2], images.shape[1], 0))
    columns = [
        on_image("", images, "image"),
        on_image("class activation\n(its mean is the logit)", activation, signed=True, under=images),
        *(on_image(name, values, under=images) for name, values in sorted(found.items())),
    ]
    return Looked(logits, columns)
