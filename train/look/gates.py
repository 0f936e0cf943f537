"""What the gate of the channel task lets through, class by class."""

from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..config import Config
from ..data.labelled import Labelled
from ..tasks import Task
from ..text import data_title, drawable, printable
from .confusion import save_confusion, watch_all
from .picture import ATTENTION

MOST_NAMES = 40  # beside one another


def finish(folder: Path, task: Task, config: Config, network: nnx.Module, source: Labelled) -> list[str]:
    """Writes ``confusion.json``, ``normalisation.json`` and ``attention.png``.

    Returns:
        Lines about the classes.
    """
    logits, recorded = watch_all(task, network, source, config.batch_size, gates=True)
    (gates,) = recorded.values()
    labels = source.labels[source.test.start :]
    means = mean_gates(gates[:, 0, 0], labels, source.classes)
    title = f"channel attention on {data_title(config.data)}: the gates of the test arrays"
    draw(folder / ATTENTION, title, means, source.names)
    return [save_confusion(folder, source, logits.argmax(-1))]


def mean_gates(gates: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The mean gate (classes, c) of the records of each class; NaN for a class without any.

    Args:
        gates: (n, c).
        labels: (n,).
        classes: how many.

    Example:
        >>> mean_gates(np.array([[0.2, 1.0], [0.4, 0.0], [0.6, 0.5]]), np.array([1, 1, 0]), 2).round(3).tolist()
        [[0.6, 0.5], [0.3, 0.5]]
    """
    means = np.full((classes, gates.shape[-1]), np.nan)
    for label in np.unique(labels):
        means[label] = gates[labels == label].mean(0)
    return means


def draw(path: Path, title: str, means: np.ndarray, names: tuple[str, ...]) -> None:
    """Draws the mean gates, and how those of each class differ from those of all.

    Args:
        path: of the picture.
        title: of the picture.
        means: (classes, c), NaN for a class without records.
        names: of the classes.
    """
    classes, channels = means.shape
    figure = Figure(figsize=(min(5 + 0.1 * channels, 16), min(4 + 0.5 * classes, 16)), layout="constrained")
    figure.suptitle(drawable(printable(title)), parse_math=False)
    above, below = figure.subplots(2, 1, sharex=True)
    _draw_table(figure, above, means, names, {"cmap": "viridis", "vmin": 0, "vmax": 1})
    above.set_title("mean gate: 0 closes a channel, 1 lets it through", fontsize=10)
    difference = means - np.nanmean(means, 0)
    most = float(np.nanmax(np.abs(difference))) or 1.0
    _draw_table(figure, below, difference, names, {"cmap": "RdBu_r", "vmin": -most, "vmax": most})
    below.set_title("less its mean over the classes", fontsize=10)
    below.set_xlabel("channel")
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _draw_table(figure: Figure, ax: Axes, values: np.ndarray, names: tuple[str, ...], scale: dict[str, Any]) -> None:
    shown = ax.imshow(values, aspect="auto", interpolation="nearest", **scale)
    ax.set_ylabel("class")
    ax.xaxis.set_major_locator(MaxNLocator(16, integer=True))
    if len(names) <= MOST_NAMES:
        ax.set_yticks(range(len(names)), names)
    figure.colorbar(shown, ax=ax, pad=0.01)
