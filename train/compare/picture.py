"""The picture: both loss curves, and below them how far they are apart."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..plots import plain_log
from ..text import data_title, drawable
from .result import Result
from .verdict import FIRST

OURS, TWIN = "tab:orange", "tab:blue"


def save_picture(path: Path, result: Result) -> None:
    """Draws the losses over the steps, and the difference with the band and the tolerance."""
    options = result.options
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    of_what = f"{options.steps} steps on {data_title(options.data)}"
    title = f"{options.network} in {options.dtype}: ours against PyTorch, {of_what}"
    figure.suptitle(drawable(title), parse_math=False)  # a path may hold dollars
    losses, apart = figure.subplots(2, 1, sharex=True)
    _draw_losses(losses, result)
    _draw_difference(apart, result)
    figure.savefig(path, dpi=120)


def _draw_losses(ax: Axes, result: Result) -> None:
    steps = np.arange(1, result.options.steps + 1)
    ax.plot(steps, result.reference.losses, color=TWIN, linewidth=3.5, alpha=0.45, label="PyTorch")
    ax.plot(steps, result.ours.losses, color=OURS, linewidth=1.1, label="ours")
    plain_log(ax)
    ax.set(title="loss of each step", ylabel="cross-entropy")
    ax.grid(alpha=0.3)
    ax.legend()


def _draw_difference(ax: Axes, result: Result) -> None:
    verdict = result.verdict
    steps = np.arange(1, result.options.steps + 1)
    # Equal losses have no place on the axis; they are drawn at its lower end.
    floor = np.finfo(result.options.dtype).eps / 8
    if verdict.band is not None:
        top = np.maximum(verdict.band, floor)
        label = f"band: PyTorch, sums in {len(result.others)} other orders"
        ax.fill_between(steps, floor, top, color=TWIN, alpha=0.2, linewidth=0, label=label)
    ax.plot(steps, np.maximum(verdict.difference, floor), ".-", color=OURS, linewidth=0.7, markersize=4, label="ours")
    judged = len(steps) if result.options.dtype == "float64" else min(FIRST, len(steps))
    ax.plot([1, judged], [verdict.tolerance] * 2, color="tab:red", label=f"tolerance {verdict.tolerance:g}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(yscale="log", xlabel="step", title="difference from PyTorch's loss, relative")
    ax.grid(alpha=0.3)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, frameon=False)
