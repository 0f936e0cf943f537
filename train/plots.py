"""The two pictures of a run folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .config import Config
from .metrics import EpochMetrics
from .step import Judged
from .task import WHITE

ROWS = 6
CHANNELS = (1, 2, 3)  # counted from zero, those that the tutorial shows
BAR = {"location": "bottom", "shrink": 0.85, "aspect": 25, "pad": 0.01}
COLOURS = {"train": "tab:blue", "test": "tab:orange"}


def save_curves(path: Path, config: Config, history: Sequence[EpochMetrics], step_errors: Sequence[float] = ()) -> None:
    """Draws error and accuracy over the epochs, and behind the error that of every training step."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(f"{config.network} on {config.data}, {config.patches} patches, preset {config.preset}")
    errors, accuracies = figure.subplots(1, 2, sharex=True)
    at = (np.arange(len(step_errors)) + 1) * len(history) / max(len(step_errors), 1)
    errors.plot(at, step_errors, color=COLOURS["train"], alpha=0.25, linewidth=0.8, label="train, each step")
    errors.set_yscale("log")
    errors.set_xlim(0, len(history) * 1.02)
    _draw_curves(errors, "error", min, history)
    _draw_curves(accuracies, "accuracy", max, history)
    figure.savefig(path, dpi=120)


def _draw_curves(ax: Axes, quantity: str, best: Callable[..., float], history: Sequence[EpochMetrics]) -> None:
    epochs = [metrics.epoch for metrics in history]
    for split, colour in COLOURS.items():
        values = [getattr(metrics, f"{split}_{quantity}") for metrics in history]
        place = values.index(best(values))
        ax.plot(epochs, values, ".-", color=colour, label=f"{split}, {best.__name__} {values[place]:.4g}")
        ax.plot(epochs[place], values[place], "o", color=colour, markersize=9, fillstyle="none")
    ax.set(xlabel="epoch", title=quantity)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.legend()


def save_attention(path: Path, config: Config, judged: Judged) -> None:
    """Draws test images beside channels 1, 2, 3 of the attended map and beside the mean over all channels.

    A column has one scale, so that images with and without a patch can be compared. The patch is outlined.

    Args:
        path: of the picture.
        config: for the title, and for the choice of images: the first six under the tutorial's rule of patches,
            else by turns with a patch and without.
        judged: a batch, as numpy arrays.
    """
    chosen = choose(judged.y, in_order=config.patches == "article")
    x, y, p, attended = (values[chosen] for values in judged)
    rows, columns = len(chosen), len(CHANNELS) + 2
    figure = Figure(figsize=(2.2 * columns, 2.15 * rows + 1.3), layout="constrained")
    figure.suptitle(f"{config.network}: test images and what the network makes of them, the attended map")
    grid = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        _draw_image(grid[row, 0], x[row], y[row], p[row])
    # An unseen colour bar keeps the images level with their maps, which have one below.
    figure.colorbar(ScalarMappable(), ax=list(grid[:, 0]), **BAR).ax.set_visible(False)
    for column, channel in enumerate(CHANNELS, start=1):
        _draw_column(figure, grid[:, column], x, attended[..., channel], f"channel {channel}")
    _draw_column(figure, grid[:, -1], x, attended.mean(-1), f"mean of {attended.shape[-1]} channels")
    figure.savefig(path, dpi=110)


def choose(y: np.ndarray, *, in_order: bool) -> np.ndarray:
    """Which images of a batch are shown.

    Example:
        >>> choose(np.array([0, 0, 1, 1, 0, 1, 1, 0]), in_order=False).tolist()
        [2, 0, 3, 1, 5, 4]
    """
    if in_order:
        return np.arange(len(y))[:ROWS]
    # The nth with a patch and the nth without take turns.
    turn = np.where(y == 1, np.cumsum(y == 1), np.cumsum(y == 0))
    return np.lexsort((y == 0, turn))[:ROWS]


def _draw_image(ax: Axes, x: np.ndarray, label: float, p: float) -> None:
    height, width, _ = x.shape
    ax.imshow(np.clip(x * 0.5 + 0.5, 0, 1), extent=(0, width, height, 0))
    right = np.round(p) == label
    title = f"{'patch' if label else 'no patch'}, p = {p:.3f}" + ("" if right else ", wrong")
    ax.set_title(title, fontsize=10, color="black" if right else "tab:red")
    _outline(ax, x)
    ax.set_axis_off()


def _draw_column(figure: Figure, axes: np.ndarray, x: np.ndarray, maps: np.ndarray, title: str) -> None:
    # Symmetric about zero; a few extreme places may saturate rather than wash out the rest.
    limit = max(float(np.quantile(np.abs(maps), 0.998)), np.finfo(np.float32).tiny)
    for ax, image, values in zip(axes, x, maps, strict=True):
        height, width, _ = image.shape
        shown = ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(0, width, height, 0))
        _outline(ax, image)
        ax.set_axis_off()
    axes[0].set_title(title, fontsize=10)
    bar = figure.colorbar(shown, ax=list(axes), **BAR)
    bar.ax.tick_params(labelsize=8)


def _outline(ax: Axes, x: np.ndarray) -> None:
    patched = np.argwhere((x == WHITE).all(-1))  # no pixel of an image is as bright as a patch
    if len(patched):
        (top, left), (bottom, right) = patched.min(0), patched.max(0) + 1
        ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="gold", linewidth=1.5))
