"""A picture as a grid: a row per record, a column of panels per thing that is shown of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..plots import new_figure

ATTENTION = "attention.png"  # in the folder of a run
ROWS = 6  # of that picture
EXTREME = 0.998  # quantile at which a scale ends, so that single places do not wash out the rest,
FLAT = 1e-3  # unless the rest is as good as constant
MOST_NAMES = 40


@dataclass(frozen=True)
class Column:
    """A column of panels.

    Attributes:
        title: above the column.
        values: images (rows, h, w, 3), maps (rows, h, w), bars (rows, c), or lines (rows, steps, lines).
        kind: what they are.
        signed: whether the scale of a map is symmetric about zero. Each map has its own scale, and a colour bar.
        extent: the left, right, lower and upper end of a map's axes.
        axes: the names of the two axes, which have no ticks without.
        under: images (rows, h, w, 3) that the maps are laid over.
        names: of a map's rows.
    """

    title: str
    values: np.ndarray
    kind: Literal["image", "map", "bars", "lines"] = "map"
    signed: bool = False
    extent: tuple[float, float, float, float] | None = None
    axes: tuple[str, str] | None = None
    under: np.ndarray | None = None
    names: Sequence[str] = ()


class Caption(NamedTuple):
    """The text above a record, in red where the network is wrong."""

    text: str
    wrong: bool = False


def in_turn(labels: np.ndarray) -> np.ndarray:
    """The first records of each label in turn, six in all: 2, 3, 0, 5, 4 and 1 for labels 2 2 0 1 1 0 2 2."""
    turn = np.zeros(len(labels), int)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return np.lexsort((labels, turn))[:ROWS]


def draw(title: str, captions: Sequence[Caption], columns: Sequence[Column], size: tuple[float, float]) -> Figure:
    """Draws the columns side by side, with panels of a ``size`` in inches; a caption stands above its row."""
    figure = new_figure(title, size[0] * len(columns), size[1] * len(captions) + 0.8)
    grid = figure.subplots(len(captions), len(columns), squeeze=False)
    for axes, column in zip(grid.T, columns, strict=True):
        for row, ax in enumerate(axes):
            _draw_panel(figure, ax, column, row)
            if column.axes is None:
                ax.set_axis_off()
            else:
                ax.set(ylabel=column.axes[1])
        axes[0].set_title(column.title, fontsize=10, parse_math=False)
        axes[-1].set_xlabel(column.axes[0] if column.axes else "")
    for ax, caption in zip(grid[:, 0], captions, strict=True):
        colour = "tab:red" if caption.wrong else "black"
        ax.set_title(caption.text, fontsize=10, parse_math=False, color=colour)
    return figure


def _draw_panel(figure: Figure, ax: Axes, column: Column, row: int) -> None:
    values = column.values[row]
    if column.kind == "image":
        ax.imshow(values, extent=column.extent)
    elif column.kind == "lines":
        ax.plot(np.arange(len(values)) + 0.5, values, linewidth=0.9)
        ax.set_xlim(0, len(values))
    elif column.kind == "bars":
        ax.bar(np.arange(len(values)), values, width=0.9, color="tab:gray")
        ax.set(xlim=(-1, len(values)), ylim=(0, max(1, values.max())), box_aspect=1)
    else:
        _draw_map(figure, ax, column, row)
    ax.tick_params(labelsize=7)


def _draw_map(figure: Figure, ax: Axes, column: Column, row: int) -> None:
    values = column.values[row]
    low, high = limits(values, column.signed)
    if column.under is not None:
        ax.imshow(column.under[row], extent=column.extent)
    scale: dict[str, Any] = {"cmap": "RdBu_r" if column.signed else "viridis", "vmin": low, "vmax": high}
    aspect: Literal["equal", "auto"] = "equal" if column.axes is None else "auto"
    alpha = None if column.under is None else 0.6
    shown = ax.imshow(values, extent=column.extent, aspect=aspect, alpha=alpha, interpolation="nearest", **scale)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(8, integer=True))
    if 0 < len(column.names) <= MOST_NAMES:
        ax.set_yticks(range(len(column.names)), column.names, parse_math=False)
    bar = figure.colorbar(shown, ax=ax, pad=0.02, aspect=15, shrink=0.85, ticks=MaxNLocator(4))
    bar.ax.tick_params(labelsize=6, length=2, pad=1)
    bar.ax.ticklabel_format(useOffset=False)


def limits(values: np.ndarray, signed: bool) -> tuple[float, float]:
    """The ends of a map's scale."""
    low, high = np.nanquantile(np.abs(values) if signed else values, (1 - EXTREME, EXTREME)).tolist()
    if signed:
        return -high, high
    return (low, high) if high - low > FLAT * abs(high) else (float(np.nanmin(values)), float(np.nanmax(values)))
