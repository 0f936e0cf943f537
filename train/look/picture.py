"""Draws images beside the maps of a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..text import drawable
from .columns import Column, outline
from .places import CELL

ATTENTION = "attention.png"  # in the folder of a run
BAR = {"location": "bottom", "shrink": 0.85, "aspect": 25, "pad": 0.01}
MAPS = {"signed": "RdBu_r", "attention": "viridis", "range": "viridis"}
UNIFORM = 1  # attention that is no more for one place than for another
EXTREME = 0.998  # a few extreme places may saturate rather than wash out the rest


class Caption(NamedTuple):
    """What stands above an image, and whether it is about a mistake."""

    text: str
    wrong: bool = False


def draw(path: Path, title: str, x: np.ndarray, captions: Sequence[Caption], columns: Sequence[Column]) -> None:
    """Writes the picture that `compose` makes; the suffix of ``path`` says the format."""
    compose(title, x, captions, columns).savefig(path, dpi=110, bbox_inches="tight")


def compose(title: str, x: np.ndarray, captions: Sequence[Caption], columns: Sequence[Column]) -> Figure:
    """Draws a row per image; a column has one scale, so that rows can be compared. Patches are outlined.

    Texts are shown as they are, dollars too.

    Args:
        title: of the picture.
        x: images (rows, h, w, 3) as the network gets them.
        captions: one per image.
        columns: beside the images.
    """
    rows = len(x)
    figure = Figure(figsize=(2.2 * (len(columns) + 1), 2.0 * rows + 1.2), layout="constrained")
    figure.suptitle(drawable(title), parse_math=False)
    grid = figure.subplots(rows, len(columns) + 1, squeeze=False)
    for ax, image, caption in zip(grid[:, 0], x, captions, strict=True):
        _draw_image(ax, image, caption)
    # An unseen colour bar keeps the images level with their maps, which have one below.
    figure.colorbar(ScalarMappable(), ax=list(grid[:, 0]), **BAR).ax.set_visible(False)
    for axes, column in zip(grid.T[1:], columns, strict=True):
        _draw_bars(axes, column) if column.scale == "bars" else _draw_maps(figure, axes, column, x)
        axes[0].set_title(column.title, fontsize=10)
    return figure


def limits(column: Column) -> dict[str, float]:
    """The ends of a column's scale, the same for all its rows."""
    low, high = (float(end) for end in np.quantile(column.values, (1 - EXTREME, EXTREME)))
    if column.scale == "attention":
        return {"vmin": 0.0, "vmax": max(high, 2 * UNIFORM)}
    if column.scale == "signed":
        high = max(float(np.quantile(np.abs(column.values), EXTREME)), column.least)
        low = -high
    return {"vmin": low, "vmax": max(high, low + float(np.finfo(np.float32).tiny))}


def _draw_image(ax: Axes, image: np.ndarray, caption: Caption) -> None:
    height, width, _ = image.shape
    ax.imshow(np.clip(image * 0.5 + 0.5, 0, 1), extent=(0, width, height, 0))
    ax.set_title(drawable(caption.text), fontsize=10, parse_math=False, color="tab:red" if caption.wrong else "black")
    _outline(ax, image)
    ax.set_axis_off()


def _draw_maps(figure: Figure, axes: np.ndarray, column: Column, x: np.ndarray) -> None:
    scale: dict[str, Any] = {"cmap": MAPS[column.scale], **limits(column)}
    for row, (ax, image, values) in enumerate(zip(axes, x, column.values, strict=True)):
        height, width = (cells * CELL for cells in values.shape)
        shown = ax.imshow(values, extent=(0, width, height, 0), **scale)
        ax.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
        _outline(ax, image)
        if column.dots is not None and np.isfinite(column.dots[row]).all():
            y, x_ = column.dots[row] * CELL + CELL / 2
            ax.plot(x_, y, "o", color="white", markeredgecolor="black", markersize=4)
        ax.set_axis_off()
    bar = figure.colorbar(shown, ax=list(axes), ticks=MaxNLocator(4), **BAR)
    bar.ax.tick_params(labelsize=8)


def _draw_bars(axes: np.ndarray, column: Column) -> None:
    for ax, values in zip(axes, column.values, strict=True):
        ax.bar(np.arange(len(values)), values, width=0.9, color="tab:gray")
        ax.set(xlim=(-1, len(values)), ylim=(0, 1), yticks=(0, 0.5, 1), xticks=(), box_aspect=1)
        ax.tick_params(labelsize=7, pad=1)


def _outline(ax: Axes, image: np.ndarray) -> None:
    patched = outline(image)
    if patched is not None:
        top, left, height, width = patched
        ax.add_patch(Rectangle((left, top), width, height, fill=False, color="gold", linewidth=1.5))
