"""When the gates of the sensor task are open, beside the signal."""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..config import Config
from ..data.labelled import Labelled
from ..tasks import Task
from ..text import data_title, drawable, printable
from .confusion import save_confusion, watch, watch_all
from .picture import ATTENTION

ROWS = 6
MOST_LINES = 12  # sensors that get a name in the legend
EPS = float(np.finfo(np.float32).eps)


class Row(NamedTuple):
    """A window and what is shown of it.

    Attributes:
        window: (series, sensors), as the network gets it.
        gates: of each stage, (series of that stage, sensors).
        caption: above.
        wrong: whether the network is mistaken.
    """

    window: np.ndarray
    gates: list[np.ndarray]
    caption: str
    wrong: bool


def finish(folder: Path, task: Task, config: Config, network: nnx.Module, source: Labelled) -> list[str]:
    """Writes ``confusion.json``, ``normalisation.json`` and ``attention.png``.

    Returns:
        Lines about the classes.
    """
    logits, _ = watch_all(task, network, source, config.batch_size, gates=False)
    judged = logits.argmax(-1)
    labels = source.labels[source.test.start :]
    chosen = choose(labels)
    windows = source.records[source.test.start + chosen]
    _, recorded = watch(*nnx.split(network), jnp.asarray(windows), task=task)
    gates = [np.asarray(recorded[path])[..., 0] for path in sorted(recorded, key=_numbers)]
    rows = [
        Row(windows[row], [gate[row] for gate in gates], *_caption(source.names, labels[place], judged[place]))
        for row, place in enumerate(chosen)
    ]
    title = f"spatial attention on {data_title(config.data)}: test windows and the gates of each stage"
    draw(folder / ATTENTION, title, rows)
    return [save_confusion(folder, source, judged)]


def choose(labels: np.ndarray) -> np.ndarray:
    """The first windows of the classes, by turns until there are six.

    Example:
        >>> choose(np.array([2, 2, 0, 1, 1, 0, 2, 2])).tolist()
        [2, 3, 0, 5, 4, 1]
    """
    turn = np.zeros(len(labels), int)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return np.lexsort((labels, turn))[:ROWS]


def draw(path: Path, title: str, rows: list[Row]) -> None:
    """Draws a row per window: the signal over time, and the gate of each stage by time and sensor.

    A stage has one scale, from its least to its most open gate, so that windows can be compared; stages look at ever
    coarser steps of the same time.
    """
    stages = len(rows[0].gates)
    figure = Figure(figsize=(4 + 2.6 * stages, 1.7 * len(rows) + 1.2), layout="constrained")
    figure.suptitle(drawable(printable(title)), parse_math=False)
    grid = figure.subplots(len(rows), 1 + stages, squeeze=False, sharex=True, width_ratios=[1.5, *[1] * stages])
    for ax, row in zip(grid[:, 0], rows, strict=True):
        ax.plot(np.arange(len(row.window)) + 0.5, row.window, linewidth=0.9)
        ax.set_title(row.caption, fontsize=10, parse_math=False, color="tab:red" if row.wrong else "black")
        ax.set(xlim=(0, len(row.window)), ylabel="signal")
    if rows[0].window.shape[1] <= MOST_LINES:
        names = [str(sensor) for sensor in range(rows[0].window.shape[1])]
        lines = grid[0, 0].lines
        figure.legend(lines, names, title="sensor", ncols=6, fontsize=8, title_fontsize=8, loc="outside lower left")
    for stage in range(stages):
        _draw_stage(figure, grid[:, 1 + stage], [row.gates[stage] for row in rows], len(rows[0].window))
        grid[0, 1 + stage].set_title(f"gate of stage {stage + 1}", fontsize=10)
    for ax in grid[-1]:
        ax.set_xlabel("time step")
    for ax in grid[:, 1]:
        ax.set_ylabel("sensor")
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _draw_stage(figure: Figure, axes: np.ndarray, gates: list[np.ndarray], series: int) -> None:
    low, high = min(gate.min() for gate in gates), max(gate.max() for gate in gates)
    for ax, gate in zip(axes, gates, strict=True):
        sensors = gate.shape[1]
        extent = (0, series, sensors - 0.5, -0.5)
        shown = ax.imshow(
            gate.T, aspect="auto", interpolation="nearest", extent=extent, vmin=low, vmax=max(high, low + EPS)
        )
        ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    bar = figure.colorbar(shown, ax=list(axes), location="bottom", shrink=0.85, aspect=25, pad=0.01)
    bar.ax.locator_params(nbins=4)
    bar.set_label("0 closed, 1 open", fontsize=8)


def _numbers(path: str) -> list[int]:
    """Those in a path, by which the stages come one after the other."""
    return [int(part) for part in path.split(".") if part.isdecimal()]


def _caption(names: tuple[str, ...], label: int, judged: int) -> tuple[str, bool]:
    if label == judged:
        return f"class {names[label]}", False
    return f"class {names[label]}, taken for {names[judged]}", True
