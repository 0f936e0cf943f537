"""The picture of the patch task: images, and beside each the maps of a network, a column per map."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from flax_attn.networks.patch import PatchNetwork

from ..data.source import PATCH
from ..plots import new_figure
from ..text import drawable
from .maps import Size, detector_maps, gathered, kind_of, spread
from .observe import MOST_BYTES, Observed, at_once, observe
from .scores import CELL, at_centres, white_pixels

ATTENTION = "attention.png"  # in the folder of a run
ROWS = 6  # of that picture
SAVED: dict[str, Any] = {"dpi": 110, "bbox_inches": "tight"}
CHANNELS = (1, 2, 3)  # of the attended map, counted from zero: those that the tutorial shows
BAR: dict[str, Any] = {"location": "bottom", "shrink": 0.85, "aspect": 25, "pad": 0.01}
COLOURS = {"signed": "RdBu_r", "attention": "viridis", "range": "viridis"}
SMALLEST = float(np.finfo(np.float32).tiny)
EXTREME = 0.998  # quantile at which a scale ends, so that single places do not wash out the rest

_detector_maps = jax.jit(detector_maps, static_argnames=("size", "token_order"))


class Column(NamedTuple):
    """A column of the picture, on one scale."""

    title: str
    values: np.ndarray  # maps (rows, h, w), or (rows, c) for bars
    scale: Literal["signed", "attention", "range", "bars"]
    dots: np.ndarray | None = None  # a cell to mark in each row (rows, 2), NaN in rows without one
    least: float = SMALLEST  # end of a signed scale, so that rounding errors do not look like a map


def look(network: PatchNetwork, x: np.ndarray, most_bytes: int = MOST_BYTES) -> tuple[np.ndarray, list[Column]]:
    """The probabilities (b,) of images (b, h, w, 3) and all columns beside them, in chunks that fit in memory."""
    most = at_once(network, x.shape[1], x.shape[2], len(x), most_bytes)
    p, parts = [], []
    for chunk in (x[start : start + most] for start in range(0, len(x), most)):
        seen = observe(network, jnp.asarray(chunk))
        p.append(np.asarray(seen.p))
        parts.append(columns(chunk, seen, network.token_order))
    return np.concatenate(p), [_joined(*same) for same in zip(*parts, strict=True)]


def _joined(*parts: Column) -> Column:
    titles, values, scales, dots, least = zip(*parts, strict=True)
    all_dots = None if dots[0] is None else np.concatenate(dots)
    return Column(titles[0], np.concatenate(values), scales[0], all_dots, max(least))


def columns(x: np.ndarray, seen: Observed, token_order: str = "pixels") -> list[Column]:
    """All columns beside images (b, h, w, 3)."""
    attended, activation = np.asarray(seen.attended), np.asarray(seen.activation)
    # Behind an untrained LayerNorm the mean is zero but for rounding.
    least = 100 * float(np.finfo(np.float32).eps * np.abs(attended).max())
    return [
        *(Column(f"attended map\nchannel {channel}", attended[..., channel], "signed") for channel in CHANNELS),
        Column(f"attended map\nmean of {attended.shape[-1]}", attended.mean(-1), "signed", least=least),
        Column("class activation\n(its mean is the logit)", activation, "signed"),
        *_recorded_columns(seen, *query_cells(x, activation), token_order),
    ]


def query_cells(x: np.ndarray, activation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells whose attention is shown: those of the patch, or the peak of the class activation (b, h, w).

    Returns the weight of each cell (b, h, w), 1 in all, and the peaks (b, 2), NaN where there is a patch.
    """
    b, height, width = activation.shape
    cells = at_centres(white_pixels(x))[:, :height, :width].astype(np.float32)
    peaks = np.stack(np.unravel_index(activation.reshape(b, -1).argmax(1), (height, width)), axis=1).astype(float)
    for image, peak in zip(cells, peaks, strict=True):
        if image.any():
            peak[:] = np.nan
        else:
            image[tuple(peak.astype(int))] = 1
    return cells / cells.sum((1, 2), keepdims=True), peaks


def _recorded_columns(seen: Observed, places: np.ndarray, dots: np.ndarray, token_order: str) -> list[Column]:
    """Token weights as attention from and to ``places`` and received; gates as maps, or over channels as bars."""
    b, _, _, c = size = seen.attended.shape
    maps = _detector_maps(seen.recorded, size=size, token_order=token_order)
    weights = {path: array for path, array in seen.recorded.items() if kind_of(path) == "weights" and path in maps}
    gates = {path: array for path, array in seen.recorded.items() if kind_of(path) == "gate"}
    shown = []
    for path, array in weights.items():
        name = f"{path}\n" if len(weights) > 1 else ""
        if array.shape[2] == array.shape[3]:
            looks, looked_at = map(np.asarray, _at_places(array, places, size=size, token_order=token_order))
            shown.append(Column(f"{name}where the patch looks\n(or the dot)", looks, "attention", dots))
            shown.append(Column(f"{name}what looks at the patch\n(or at the dot)", looked_at, "attention", dots))
        shown.append(Column(f"{name}attention received\n(1: uniform)", np.asarray(maps[path]), "attention"))
    for path, array in gates.items():
        name = f"{path}\n" if len(gates) > 1 else ""
        if path in maps:
            mean = "\nmean over channels" if array.shape[-1] > 1 else ""
            shown.append(Column(f"{name}spatial gate{mean}", np.asarray(maps[path]), "range"))
        elif array.ndim == 4 and array.shape[1:] == (1, 1, c):
            shown.append(Column(f"{name}gate of {c} channels", np.broadcast_to(array[:, 0, 0], (b, c)), "bars"))
    return shown


@partial(jax.jit, static_argnames=("size", "token_order"))
def _at_places(weights: jax.Array, places: jax.Array, *, size: Size, token_order: str) -> tuple[jax.Array, jax.Array]:
    """Attention from and to weighted places (b, h, w), averaged over heads, as maps (b, h, w); 1 is uniform."""
    mean, held = jnp.mean(weights, axis=1) * weights.shape[-1], gathered(places, size, token_order)
    looks = jnp.einsum("bq,bqk->bk", held, mean, precision="highest")
    looked_at = jnp.einsum("bqk,bk->bq", mean, held, precision="highest")
    return spread(looks, size, token_order), spread(looked_at, size, token_order)


def in_turn(labels: np.ndarray) -> np.ndarray:
    """The first records of each label in turn, six in all: 2, 3, 0, 5, 4 and 1 for labels 2 2 0 1 1 0 2 2."""
    turn = np.zeros(len(labels), int)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return np.lexsort((labels, turn))[:ROWS]


class Caption(NamedTuple):
    """The text above a record, in red where the network is wrong."""

    text: str
    wrong: bool = False

    def draw(self, ax: Axes) -> None:
        colour = "tab:red" if self.wrong else "black"
        ax.set_title(drawable(self.text), fontsize=10, parse_math=False, color=colour)


def draw(path: Path, title: str, x: np.ndarray, captions: Sequence[Caption], columns: Sequence[Column]) -> Figure:
    """Draws a row per image (rows, h, w, 3), patches outlined; all rows of a column share its scale."""
    figure = new_figure(title, 2.2 * (len(columns) + 1), 2.0 * len(x) + 1.2)
    grid = figure.subplots(len(x), len(columns) + 1, squeeze=False)
    for ax, image, caption in zip(grid[:, 0], x, captions, strict=True):
        ax.imshow(np.clip(image * 0.5 + 0.5, 0, 1), extent=(0, image.shape[1], image.shape[0], 0))
        caption.draw(ax)
        _outline(ax, image)
        ax.set_axis_off()
    # An invisible colour bar keeps the images level with their maps, which have one below.
    figure.colorbar(ScalarMappable(), ax=list(grid[:, 0]), **BAR).ax.set_visible(False)
    for axes, column in zip(grid.T[1:], columns, strict=True):
        _draw_bars(axes, column) if column.scale == "bars" else _draw_maps(figure, axes, column, x)
        axes[0].set_title(column.title, fontsize=10)
    figure.savefig(path, **SAVED)
    return figure


def limits(column: Column) -> dict[str, float]:
    """The ends of a column's scale."""
    low, high = (float(end) for end in np.quantile(column.values, (1 - EXTREME, EXTREME)))
    if column.scale == "attention":
        return {"vmin": 0.0, "vmax": max(high, 2.0)}
    if column.scale == "signed":
        high = max(float(np.quantile(np.abs(column.values), EXTREME)), column.least)
        low = -high
    return {"vmin": low, "vmax": max(high, low + SMALLEST)}


def _draw_maps(figure: Figure, axes: np.ndarray, column: Column, x: np.ndarray) -> None:
    scale: dict[str, Any] = {"cmap": COLOURS[column.scale], **limits(column)}
    for row, (ax, image, values) in enumerate(zip(axes, x, column.values, strict=True)):
        height, width = (cells * CELL for cells in values.shape)
        shown = ax.imshow(values, extent=(0, width, height, 0), **scale)
        ax.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
        _outline(ax, image)
        if column.dots is not None and np.isfinite(column.dots[row]).all():
            y, x_ = column.dots[row] * CELL + CELL / 2
            ax.plot(x_, y, "o", color="white", markeredgecolor="black", markersize=4)
        ax.set_axis_off()
    figure.colorbar(shown, ax=list(axes), ticks=MaxNLocator(4), **BAR).ax.tick_params(labelsize=8)


def _draw_bars(axes: np.ndarray, column: Column) -> None:
    for ax, values in zip(axes, column.values, strict=True):
        ax.bar(np.arange(len(values)), values, width=0.9, color="tab:gray")
        ax.set(xlim=(-1, len(values)), ylim=(0, 1), yticks=(0, 0.5, 1), xticks=(), box_aspect=1)
        ax.tick_params(labelsize=7, pad=1)


def _outline(ax: Axes, image: np.ndarray) -> None:
    rows, columns = np.nonzero(white_pixels(image))
    if len(rows):
        ax.add_patch(Rectangle((columns.min(), rows.min()), PATCH, PATCH, fill=False, color="gold", linewidth=1.5))
