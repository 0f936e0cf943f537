"""The curves of a run folder, and what all pictures have in common."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from .config import Config, PatchConfig
from .runs import EpochMetrics
from .text import data_title, printable

COLOURS = {"train": "tab:blue", "test": "tab:orange"}


def new_figure(title: str, width: float, height: float) -> Figure:
    """An empty figure with a title, whose dollars are no formula."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(printable(title), parse_math=False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a picture; a letter that no font has becomes a box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, dpi=110, bbox_inches="tight")


def save_curves(path: Path, config: Config, history: Sequence[EpochMetrics], step_errors: Sequence[float] = ()) -> None:
    """Draws error and accuracy over the epochs, and the error of every training step behind."""
    patches = f"{config.patches} patches, " if isinstance(config, PatchConfig) else ""
    figure = new_figure(f"{config.title} on {data_title(config.data)}, {patches}preset {config.preset}", 11, 4.2)
    errors, accuracies = figure.subplots(1, 2, sharex=True)
    at = (np.arange(len(step_errors)) + 1) * len(history) / max(len(step_errors), 1)
    errors.plot(at, step_errors, color=COLOURS["train"], alpha=0.25, linewidth=0.8, label="train, each step")
    errors.set_xlim(0, len(history) * 1.02)
    _draw_curves(errors, "error", min, history)
    plain_log(errors)
    errors.set_ylabel("cross-entropy")
    _draw_curves(accuracies, "accuracy", max, history)
    accuracies.set_ylabel("share classified correctly")
    save(figure, path)


def plain_log(ax: Axes) -> None:
    """Makes the y axis logarithmic, after drawing, with plain numbers: 0.02 and not 2x10^-2."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    decades = np.log10(high / low)
    ax.yaxis.set_major_locator(LogLocator(subs=(1,) if decades > 4 else (1, 2, 5)) if decades > 1 else MaxNLocator(6))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")


def _draw_curves(ax: Axes, quantity: str, best: Callable[..., float], history: Sequence[EpochMetrics]) -> None:
    epochs = [metrics.epoch for metrics in history]
    for split, colour in COLOURS.items():
        values = [getattr(metrics, f"{split}_{quantity}") for metrics in history]
        place = values.index(best(values))
        ax.plot(epochs, values, ".-", color=colour, label=f"{split}, {best.__name__} {values[place]:.4g}")
        ax.plot(epochs[place], values[place], "o", color=colour, markersize=9, fillstyle="none")
    ax.set(xlabel="epoch (train: mean over it, test: at its end)", title=quantity)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.legend()
