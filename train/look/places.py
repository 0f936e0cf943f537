"""Where a ResNet looks: the class activation map of the class that it predicts, and the gates with a value per place.

Zhou, Khosla, Lapedriza, Oliva & Torralba, "Learning deep features for discriminative localization", CVPR 2016.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from flax_attn.networks.resnet import ResNet

from ..tasks.classes import normalised
from .grid import Caption, Column, draw
from .maps import detector_maps, kind_of
from .observe import Named, Split, recorded_of

PANEL = (2.1, 1.9)  # inches


class Seen(NamedTuple):
    """What a network makes of images."""

    logits: Any  # (b, classes), float32
    activation: Any  # (b, h, w), the contribution of every place to the largest logit, which is its mean
    gates: Any  # maps (b, h, w) each, means over channels, by stage and name: those of the stage's last block


@jax.jit
def _see(model: Split, images: jax.Array) -> Seen:
    network: Any = nnx.merge(*model, copy=True)
    network.eval()
    x = normalised(images)
    features = network.features(x)
    logits = network.fc(jnp.mean(features, axis=(1, 2))).astype(jnp.float32)
    kernel, bias = network.fc.kernel[...].T[logits.argmax(-1)], network.fc.bias[...][logits.argmax(-1)]
    # Not a matrix product: some devices round those.
    activation = jnp.sum(features.astype(jnp.float32) * kernel[:, None, None], axis=-1) + bias[:, None, None]
    gates: Named = {}
    for path, array in recorded_of(network, x).items():
        if kind_of(path) == "gate":
            stage, *_, name = path.split(".")
            gates |= {f"{stage}: {name}": values for values in detector_maps({path: array}, array.shape).values()}
    return Seen(logits, activation, gates)


def see(network: ResNet, images: np.ndarray) -> Seen:
    """Applies a network in eval mode to images, uint8 (b, h, w, 3), one at a time: what blocks record takes memory."""
    model = nnx.split(network)
    parts = [jax.tree.map(np.asarray, _see(model, jnp.asarray(image))) for image in images[:, None]]
    seen: Seen = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    return seen


def draw_places(title: str, images: np.ndarray, captions: Sequence[Caption], seen: Seen) -> Figure:
    """Draws a row per image, uint8 (b, h, w, 3): the image, and over it the class activation map and the gates."""
    extent = (0.0, float(images.shape[2]), float(images.shape[1]), 0.0)
    on_image = partial(Column, extent=extent, under=images)
    columns = [
        Column("", images, "image", extent=extent),
        on_image("class activation\n(its mean is the logit)", seen.activation, signed=True),
        *(on_image(name, values) for name, values in sorted(seen.gates.items())),
    ]
    return draw(title, captions, columns, PANEL)
