"""Pictures of where a network looks: images, and beside each the network's maps, a column per map."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..data.source import PATCH
from ..devices import Layout
from ..tasks.classes import normalised
from ..tasks.patch import WHITE
from .grid import Caption, Column, draw
from .maps import Size, detector_maps, gathered, kind_of, spread
from .observe import Named, Split, observe, over_batches
from .scores import CELL, CENTRES

CHANNELS = 3  # of the attended map that are shown
PANEL = (2.1, 1.8)  # inches

_detector_maps = jax.jit(detector_maps, static_argnames=("size", "token_order"))


class Looked(NamedTuple):
    """What a network makes of images, and the columns that show it."""

    answer: np.ndarray  # as `Observed` has it
    columns: list[Column]
    places: Any = None  # of numpy, (b, h, w), the weights of the cells whose attention is shown, if it is


def look(network: Any, images: np.ndarray) -> Looked:
    """Applies a network of the patch task to painted images (b, h, w, 3).

    One at a time: what blocks record of large ones takes much memory.
    """

    def look_at(model: Split, indices: np.ndarray, _: Layout) -> dict[str, Any]:
        answer, attended, activation, recorded = observe(model, images[indices])
        places = query_cells(images[indices], np.asarray(activation))
        maps = recorded_maps(recorded, attended.shape, places, network.token_order)
        return {"answer": answer, "attended": attended, "activation": activation, "places": places, **maps}

    found = over_batches(network, range(len(images)), 1, look_at)
    answer, attended, activation, places = (found.pop(name) for name in ("answer", "attended", "activation", "places"))
    shown = columns(images, attended, activation, np.asarray(network.final.kernel)[:, 0], found)
    return Looked(answer, shown, places)


def columns(
    x: np.ndarray, attended: np.ndarray, activation: np.ndarray, kernel: np.ndarray, recorded: dict[str, np.ndarray]
) -> list[Column]:
    """The columns for images (b, h, w, 3), of the channels those that contribute most to the class activation."""
    (_, height, width, _), (_, rows, cells, _) = x.shape, attended.shape
    images = np.clip(x * 0.5 + 0.5, 0, 1)
    most = np.argsort(-np.abs(attended * kernel).mean((0, 1, 2)), kind="stable")[:CHANNELS]
    on_image = partial(Column, extent=(0, cells * CELL, rows * CELL, 0))
    return [
        Column("", images, "image", extent=(0, width, height, 0)),
        on_image("class activation\n(its mean is the logit)", activation, signed=True, under=images),
        *(on_image(f"attended map\nchannel {channel}", attended[..., channel], signed=True) for channel in most),
        *(
            on_image(title, values) if values.ndim == 3 else Column(title, values, "bars", axes=("channel", "gate"))
            for title, values in recorded.items()
        ),
    ]


def query_cells(x: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """The weights (b, h, w), 1 in all, of the cells whose attention is shown.

    They are those of the patch, or the peak of the class activation (b, h, w) in an image without one.
    """
    cells = (x == WHITE).all(-1)[CENTRES][:, : activation.shape[1], : activation.shape[2]].astype(np.float32)
    peaks = activation == activation.max((1, 2), keepdims=True)
    cells = np.where(cells.any((1, 2), keepdims=True), cells, peaks)
    return np.asarray(cells / cells.sum((1, 2), keepdims=True))


def recorded_maps(recorded: Named, size: Size, places: np.ndarray, token_order: str) -> Named:
    """Token weights as attention from and to ``places`` and received, gates as maps or as bars (b, c), by title."""
    b, _, _, c = size
    maps = _detector_maps(recorded, size=size, token_order=token_order)
    kinds = [kind_of(path) for path in recorded]
    shown: Named = {}
    for path, array in recorded.items():
        kind = kind_of(path)
        name = f"{path}\n" if kinds.count(kind) > 1 else ""
        if kind == "weights" and path in maps:
            if array.shape[2] == array.shape[3]:
                looks, looked_at = _at_places(array, places, size=size, token_order=token_order)
                shown[f"{name}where the patch looks\n(or the dot)"] = looks
                shown[f"{name}what looks at the patch\n(or at the dot)"] = looked_at
            shown[f"{name}attention received\n(1: uniform)"] = maps[path]
        elif kind == "gate" and path in maps:
            shown[f"{name}spatial gate" + "\nmean over channels" * (array.shape[-1] > 1)] = maps[path]
        elif kind == "gate" and array.ndim == 4 and array.shape[1:] == (1, 1, c):
            shown[f"{name}gate of {c} channels"] = jnp.broadcast_to(array[:, 0, 0], (b, c))
    return shown


@partial(jax.jit, static_argnames=("size", "token_order"))
def _at_places(weights: jax.Array, places: jax.Array, *, size: Size, token_order: str) -> tuple[jax.Array, jax.Array]:
    """Attention from and to weighted places (b, h, w), averaged over heads, as maps (b, h, w); 1 is uniform."""
    mean, held = jnp.mean(weights, axis=1) * weights.shape[-1], gathered(places, size, token_order)
    looks = jnp.einsum("bq,bqk->bk", held, mean, precision="highest")
    looked_at = jnp.einsum("bqk,bk->bq", mean, held, precision="highest")
    return spread(looks, size, token_order), spread(looked_at, size, token_order)


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
    """Applies a ResNet to images, uint8 (b, h, w, 3); its gates with a value per place are shown."""
    found = over_batches(network, range(len(images)), 1, lambda model, indices, _: _see(model, images[indices]))
    logits, activation = found.pop("logits"), found.pop("activation")
    on_image = partial(Column, extent=(0, images.shape[2], images.shape[1], 0))
    columns = [
        on_image("", images, "image"),
        on_image("class activation\n(its mean is the logit)", activation, signed=True, under=images),
        *(on_image(name, values, under=images) for name, values in sorted(found.items())),
    ]
    return Looked(logits, columns)


def draw_images(title: str, x: np.ndarray, captions: Sequence[Caption], looked: Looked) -> Figure:
    """Draws a row per image (b, h, w, 3); for ``places`` with the patch outlined, or a dot at their peak."""
    figure, count = draw(title, captions, looked.columns, PANEL), len(looked.columns)
    if looked.places is None:
        return figure
    for row, (image, places) in enumerate(zip(x, looked.places, strict=True)):
        inside = np.argwhere((image == WHITE).all(-1))
        dot = np.argwhere(places == places.max())[0] * CELL + CELL / 2
        for ax, column in zip(figure.axes[row * count : (row + 1) * count], looked.columns, strict=True):
            if column.kind == "bars" or column.axes:  # no map over places
                continue
            if len(inside):
                ax.add_patch(Rectangle(inside.min(0)[::-1], PATCH, PATCH, fill=False, color="gold", linewidth=1.5))
            else:
                ax.plot(*dot[::-1], "o", color="white", markeredgecolor="black", markersize=4)
    return figure
