"""The figure: a dot for each run."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, StrMethodFormatter

from .outcomes import Outcome, Report
from .rows import PROTOCOLS, ROWS, Protocol
from .tables import COLUMNS, Value, chance, spread

SHOWN = COLUMNS[2:5]  # smallest test error, accuracy, pointing game
POINTING = "pointing game: class activation map"
SIDES = {
    "ours": ("tab:orange", -0.14, "ours, a dot for each seed"),
    "pytorch": ("tab:blue", 0.14, "PyTorch, a dot for each seed"),
}
TITLES: dict[Protocol, str] = {"per_image": "a patch of its own for each image", "article": "the tutorial's patches"}


def save_picture(path: Path, report: Report) -> None:
    """Writes the picture that `compose` makes."""
    compose(report).savefig(path, dpi=120)


def compose(report: Report) -> Figure:
    """Draws errors, accuracy and pointing game: a line per network, a dot per seed, a bar at their mean."""
    protocols = [protocol for protocol in PROTOCOLS if any(run.protocol == protocol for run in report.outcomes)]
    names = [name for name in ROWS if any(run.row == name for run in report.outcomes)]
    height = 1.4 + len(protocols) * (0.9 + 0.36 * len(names))
    figure = Figure(figsize=(13, height), layout="constrained")
    parts = figure.subfigures(len(protocols), 1, squeeze=False)[:, 0]
    all_axes = []
    for protocol, part in zip(protocols, parts, strict=True):
        part.suptitle(TITLES[protocol])
        axes = part.subplots(1, len(SHOWN), sharey=True)
        for column, ax in zip(SHOWN, axes, strict=True):
            _draw(ax, report, protocol, names, column.value)
            ax.set_title(column.title)
        axes[0].set_yticks(range(len(names)), [ROWS[name].title for name in names])
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        axes[2].axvline(chance(report), color="grey", linestyle=":")
        axes[2].set_title(POINTING)
        all_axes.append(axes)
    _scale(all_axes, report)
    figure.legend(handles=_handles(report), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _handles(report: Report) -> list[Line2D]:
    dots = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=label)
        for side, (colour, _, label) in SIDES.items()
        if any(run.side == side for run in report.outcomes)
    ]
    mean = Line2D([], [], marker="|", linestyle="", color="black", markersize=13, markeredgewidth=2, label="mean")
    return [*dots, mean, Line2D([], [], color="grey", linestyle=":", label="chance")]


def _scale(all_axes: Sequence[Sequence[Axes]], report: Report) -> None:
    """The same scale for all protocols, a decade of errors at least."""
    errors = [run.min_test_error for run in report.outcomes]
    lowest = min(run.test_accuracy for run in report.outcomes)
    for error, accuracy, pointing in all_axes:
        error.set_xscale("log")
        error.set_xlabel("logarithmic")
        error.set_xlim(min(min(errors) / 1.2, max(errors) / 10), max(errors) * 1.2)
        error.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        error.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        error.xaxis.set_minor_formatter("")
        accuracy.set_xlim(lowest - 0.05 * (1 - lowest) - 0.005, 1.005)
        pointing.set_xlim(-0.03, 1.03)


def _draw(ax: Axes, report: Report, protocol: Protocol, names: list[str], value: Value) -> None:
    for side, (colour, shift, _) in SIDES.items():
        for place, name in enumerate(names):
            _draw_runs(ax, report.of(name, protocol, side), place + shift, value, colour)
    ax.grid(alpha=0.3)


def _draw_runs(ax: Axes, runs: list[Outcome], place: float, value: Value, colour: str) -> None:
    values = [shown for run in runs if (shown := value(run)) is not None]
    found = spread(values)
    if found is not None:
        ax.plot(values, [place] * len(values), "o", color=colour, alpha=0.55, markersize=5)
        ax.plot([found.mean], [place], "|", color=colour, markersize=13, markeredgewidth=2)
