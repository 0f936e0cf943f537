"""The results in tables and a figure, in pages whose other text is left alone."""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from matplotlib.transforms import Bbox

from torch_ref.report.docs import write_all_between
from torch_ref.report.tables import markdown

from ..config import flag
from ..runs import write_whole
from .runs import PROGRAM, PROTOCOLS, ROWS, SAME, Outcome, Report

PAGE, BOARD, PICTURE, NUMBERS = "results.md", "leaderboard.md", "leaderboard.png", "results.json"
SIDES = ("ours", "pytorch")
MAPS = {"attended_mean": "mean of the attended map", "class_activation": "class activation"}

Table = tuple[list[str], list[list[str]]]  # heads and lines


class Column(NamedTuple):
    """A column of figures: its title, its value for a run, and its format."""

    title: str
    value: Callable[[Outcome], float | None]
    form: str = ".3g"

    def of(self, runs: Sequence[Outcome]) -> str:
        """The mean over the seeds, with the sample's standard deviation if they differ."""
        values = [value for run in runs if (value := self.value(run)) is not None]
        deviation = statistics.stdev(values) if len(values) > 1 else 0
        spread = f" ± {deviation:{self.form}}" if deviation else ""
        return f"{statistics.fmean(values):{self.form}}{spread}" if values else ""


def score(name: str, title: str, form: str = ".3f", of: str = "class_activation") -> Column:
    """A column with a score of a map, as in localisation.json."""
    return Column(title, lambda run: run.maps.get(of, {}).get(name), form)


COLUMNS = (
    Column("parameters", lambda run: run.parameters, ",.0f"),
    Column("min train error", lambda run: min(run.train_errors)),
    Column("min test error", lambda run: min(run.test_errors)),
    Column("test accuracy", lambda run: run.test_accuracy, ".3f"),
    score("pointing", "pointing game"),
)
COMPARED = COLUMNS[2:]


def write_report(report: Report, folder: Path) -> list[Path]:
    """Writes numbers, pages and figure, and returns their paths; of pages that are there only what is between marks."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, picture = folder / NUMBERS, folder / PICTURE
    write_whole(numbers, json.dumps(dataclasses.asdict(report), indent=1, allow_nan=False) + "\n")
    draw(report).savefig(picture, dpi=120)
    pages = []
    for name, title, parts in ((PAGE, "Results", sections(report)), (BOARD, "Leaderboard", leaderboard(report))):
        page = folder / name
        if not page.is_file() or f"<!-- {next(iter(parts))}: begin -->" not in page.read_text(encoding="utf-8"):
            marked = [f"## {part}\n\n<!-- {part}: begin -->\n<!-- {part}: end -->" for part in parts]
            write_whole(page, "\n\n".join([f"# {title}", *marked, ""]))
        write_all_between(page, parts)
        pages.append(page)
    return [*pages, picture, numbers]


def leaderboard(report: Report) -> dict[str, str]:
    """The generated parts of the leaderboard, by the name of their marks."""
    heads, lines = board_table(report)
    machines = " / ".join(dict.fromkeys(cost.where for cost in report.costs)) or "not measured yet"
    devices = " or ".join(map(str, sorted({cost.devices for cost in report.costs})))
    costs = f"- costs: {machines}" + (f"; a step on {devices} JAX devices" if devices else "")
    return {
        "runs": f"{summary(report)}\n{costs}",
        "board": markdown(heads, lines) if lines else "No runs yet.",
        "figure": f"![test error against the multiply-adds that a block adds]({PICTURE})",
    }


def sections(report: Report) -> dict[str, str]:
    """The generated parts of the other results, by the name of their marks."""
    tables: list[tuple[str, Table]] = [("results article", results_table(report, "article"))]
    for kind, make in (("twins", twin_table), ("maps", map_table)):
        tables += [(f"{kind} {protocol}", make(report, protocol)) for protocol in PROTOCOLS]
    return {mark: markdown(heads, lines) if lines else "No runs yet." for mark, (heads, lines) in tables}


def summary(report: Report) -> str:
    """The command, the number of runs, the images and the machines."""
    words = [word for name in SAME for word in (flag(name), str(report.options[name]))]
    height, width = report.images["image_size"]
    train, test = (end - start for start, end in (report.images["train"], report.images["test"]))
    lines = {
        "command": f"`{' '.join([PROGRAM, '--data', report.options['data'], *words])}`",
        "runs": str(len(report.outcomes)),
        "images": f"{report.images['images']} of {height}x{width}: {train} training, {test} test",
        "machines": " / ".join(dict.fromkeys(run.where for run in report.outcomes)),
    }
    return "\n".join(f"- {name}: {line}" for name, line in lines.items())


def ranked(report: Report) -> dict[str, list[Outcome]]:
    """Our runs with an independent patch for each image, by row, the row with the smallest mean test error first."""
    rows = {name: runs for name in ROWS if (runs := report.of(name, "per_image"))}
    return dict(sorted(rows.items(), key=lambda row: mean_error(row[1])))


def mean_error(runs: Sequence[Outcome]) -> float:
    return statistics.fmean(min(run.test_errors) for run in runs)


def board_table(report: Report) -> Table:
    """The rows in the order of their test errors, with what they cost."""
    costs, lines = {cost.row: cost for cost in report.costs}, []
    for place, (name, runs) in enumerate(ranked(report).items(), start=1):
        cost, measured = costs.get(name), ["", "", ""]
        if cost:
            measured = [f"{cost.multiply_adds / 1e6:.2f}", f"{cost.milliseconds:.1f}", f"{cost.step_bytes / 2**20:.1f}"]
        outcomes = [column.of(runs) for column in (*COMPARED, COLUMNS[0])]
        lines.append([str(place), f"`{name}`", *outcomes, *measured, str(len(runs))])
    heads = [column.title for column in (*COMPARED, COLUMNS[0])]
    return ["", "network", *heads, "multiply-adds, M", "step, ms", "memory, MiB", "seeds"], lines


def results_table(report: Report, protocol: str) -> Table:
    """Our runs."""
    rows = {name: report.of(name, protocol) for name in ROWS}
    lines = [[f"`{name}`", *(each.of(runs) for each in COLUMNS), str(len(runs))] for name, runs in rows.items() if runs]
    return ["network", *(each.title for each in COLUMNS), "seeds"], lines


def twin_table(report: Report, protocol: str) -> Table:
    """Ours beside PyTorch's, of the seeds that both have."""
    heads = [f"{column.title}: {side}" for column in COMPARED for side in ("ours", "PyTorch")]
    lines = []
    for name in ROWS:
        ours, theirs = ({run.seed: run for run in report.of(name, protocol, side)} for side in SIDES)
        if seeds := sorted(ours.keys() & theirs.keys()):
            sides = [[runs[seed] for seed in seeds] for runs in (ours, theirs)]
            cells = [column.of(runs) for column in COMPARED for runs in sides]
            lines.append([f"`{name}`", str(len(seeds)), *cells, distance(*sides)])
    return ["network", "seeds", *heads, "apart"], lines


def distance(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> str:
    """The mean of our smallest test errors minus PyTorch's, in standard deviations.

    The standard deviation is that over the seeds, the root of the mean of both sides' variances.
    """
    a, b = ([min(run.test_errors) for run in runs] for runs in (ours, theirs))
    if len(a) < 2:
        return ""
    apart = statistics.fmean(a) - statistics.fmean(b)
    deviation = math.sqrt((statistics.variance(a) + statistics.variance(b)) / 2)
    return f"{apart / deviation:+.2f} sd" if deviation else ""


def map_table(report: Report, protocol: str) -> Table:
    """Where all maps of our networks point."""
    lines = []
    for name in ROWS:
        runs = report.of(name, protocol)
        for kind in dict.fromkeys(kind for run in runs for kind in run.maps):
            scores = (("pointing", ".3f"), ("energy", ".3g"), ("average_precision", ".3f"))
            cells = [score(each, each, form, kind).of(runs) for each, form in scores]
            lines.append([f"`{name}`: {MAPS.get(kind, f'`{kind}`')}", *cells])
    return ["network and map", "pointing game", "energy", "average precision"], lines


def draw(report: Report) -> Figure:
    """Draws test errors against the multiply-adds that blocks add to the CNN, whose error is a line."""
    figure = Figure(figsize=(13, 9), layout="constrained")
    ax, rows = figure.subplots(), ranked(report)
    costs = {cost.row: cost.multiply_adds / 1e6 for cost in report.costs if cost.row in rows}
    base = costs.get("cnn", math.inf)
    dots = {row: (costs[row] - base, mean_error(runs)) for row, runs in rows.items() if costs.get(row, 0) > base}
    if not dots:
        ax.set_axis_off()
        return figure
    ax.plot(*np.array(list(dots.values())).T, "o", color="tab:orange")
    ax.set(xscale="log", yscale="log", xlabel="multiply-adds that the block adds per image, millions")
    ax.set(ylabel="min test error, mean over the seeds")
    ax.axhline(mean_error(rows["cnn"]), color="grey", linestyle=":", label="cnn, without a block")
    ax.legend(frameon=False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    ax.grid(alpha=0.3)
    ax.margins(x=0.1)  # room for names
    label(figure, ax, dots)
    return figure


def label(figure: Figure, ax: Axes, dots: Mapping[str, tuple[float, float]]) -> None:
    """Writes the names of dots as near to them as there is room, with a line to the dot."""
    figure.draw_without_rendering()  # the layout, without which places on the page are not known
    point = figure.dpi / 72
    places = {row: ax.transData.transform(dot) / point for row, dot in dots.items()}
    taken = [Bbox.from_bounds(x - 3, y - 3, 6, 6) for x, y in places.values()]
    arrow = {"arrowstyle": "-", "color": "grey", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0}
    for row, (x, y) in places.items():
        width, height = 5.5 * len(row) + 3, 11.0  # of the letters, about
        around = ((reach, turn) for reach in range(6, 300, 4) for turn in np.linspace(0, 2 * math.pi, 24))
        for reach, turn in around:
            dx, dy = reach * math.cos(turn), reach * math.sin(turn) - height / 2
            dx -= width if dx < 0 else 0
            box = Bbox.from_bounds(x + dx, y + dy, width, height)
            if not box.count_overlaps(taken):
                break
        taken.append(box)
        ax.annotate(row, dots[row], (dx, dy), textcoords="offset points", va="bottom", fontsize=8, arrowprops=arrow)
