"""The figure: a dot for each run."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, StrMethodFormatter

from .outcomes import Outcome, Report
from .rows import PROTOCOLS, ROWS, Protocol
from .tables import COLUMNS, Value, spread

SHOWN = COLUMNS[2:5]  # smallest test error, accuracy, pointing game
SIDES = {"ours": ("tab:orange", -0.14, "ours"), "pytorch": ("tab:blue", 0.14, "PyTorch")}
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
    for protocol, part in zip(protocols, parts, strict=True):
        part.suptitle(TITLES[protocol])
        axes = part.subplots(1, len(SHOWN), sharey=True)
        for column, ax in zip(SHOWN, axes, strict=True):
            _draw(ax, report, protocol, names, column.value)
            ax.set_title(column.title)
        axes[0].set_yticks(range(len(names)), [ROWS[name].title for name in names])
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        _scale(axes)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=label)
        for side, (colour, _, label) in SIDES.items()
        if any(run.side == side for run in report.outcomes)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _scale(axes: Sequence[Axes]) -> None:
    errors, *shares = axes
    errors.set_xscale("log")
    low, high = errors.get_xlim()
    errors.set_xlim(min(low, high / 10), high * 1.1)  # a decade at least
    errors.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    errors.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    errors.xaxis.set_minor_formatter("")
    for ax in shares:
        ax.set_xlim(-0.03, 1.03)


def _draw(ax: Axes, report: Report, protocol: Protocol, names: list[str], value: Value) -> None:
    for side, (colour, shift, _) in SIDES.items():
        for place, name in enumerate(names):
            _draw_runs(ax, report.of(name, protocol, side), place + shift, value, colour)
    ax.grid(alpha=0.3, axis="x")


def _draw_runs(ax: Axes, runs: list[Outcome], place: float, value: Value, colour: str) -> None:
    values = [shown for run in runs if (shown := value(run)) is not None]
    found = spread(values)
    if found is not None:
        ax.plot(values, [place] * len(values), "o", color=colour, alpha=0.55, markersize=5)
        ax.plot([found.mean], [place], "|", color=colour, markersize=13, markeredgewidth=2)
