"""The results in tables and a figure, in a page whose other text is left alone."""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from torch_ref.report.docs import write_all_between
from torch_ref.report.tables import markdown

from ..config import flag
from ..data.source import PATCH
from ..runs import write_whole
from .runs import PROGRAM, PROTOCOLS, ROWS, SAME, Outcome, Report

PAGE, PICTURE, NUMBERS = "results.md", "results.png", "results.json"
SHOWN = {"ours": ("ours", "tab:orange", -0.14), "pytorch": ("PyTorch", "tab:blue", 0.14)}
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
    Column("images/s", lambda run: run.images_per_second, ",.0f"),
)
COMPARED = COLUMNS[2:5]  # without speed: the two sides' runs may have shared the machine with others


def write_report(report: Report, folder: Path) -> list[Path]:
    """Writes page, figure and numbers, and returns their paths; of a page that is there only what is between marks."""
    folder.mkdir(parents=True, exist_ok=True)
    page, picture, numbers = folder / PAGE, folder / PICTURE, folder / NUMBERS
    write_whole(numbers, json.dumps(dataclasses.asdict(report), indent=1, allow_nan=False) + "\n")
    draw(report).savefig(picture, dpi=120)
    parts = sections(report)
    if not page.is_file() or "<!-- runs: begin -->" not in page.read_text(encoding="utf-8"):
        marked = [f"## {name}\n\n<!-- {name}: begin -->\n<!-- {name}: end -->" for name in parts]
        write_whole(page, "\n\n".join(["# Results", f"![errors, accuracy and pointing game]({PICTURE})", *marked, ""]))
    write_all_between(page, parts)
    return [page, picture, numbers]


def sections(report: Report) -> dict[str, str]:
    """The generated parts of a page, by the name of their marks."""
    parts = {"runs": summary(report)}
    for kind, make in (("results", results_table), ("twins", twin_table), ("maps", map_table)):
        for protocol in PROTOCOLS:
            heads, lines = make(report, protocol)
            parts[f"{kind} {protocol}"] = markdown(heads, lines) if lines else "No runs yet."
    return parts


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
        ours, theirs = ({run.seed: run for run in report.of(name, protocol, side)} for side in SHOWN)
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
    """Draws errors, accuracy and pointing game: a line per network, a dot per seed."""
    protocols = [protocol for protocol in PROTOCOLS if any(run.protocol == protocol for run in report.outcomes)]
    names = [name for name in ROWS if any(run.row == name for run in report.outcomes)]
    figure = Figure(figsize=(13, 1.4 + len(protocols) * (0.9 + 0.36 * len(names))), layout="constrained")
    grid = figure.subplots(len(protocols), len(COMPARED), sharex="col", sharey=True, squeeze=False)
    height, width = report.images["image_size"]
    for protocol, axes in zip(protocols, grid, strict=True):
        runs = [run for run in report.outcomes if run.protocol == protocol]
        for column, ax in zip(COMPARED, axes, strict=True):
            for side, (label, colour, shift) in SHOWN.items():
                dots = [(column.value(run), names.index(run.row) + shift) for run in runs if run.side == side]
                ax.plot(*np.array(dots, float).reshape(-1, 2).T, "o", color=colour, alpha=0.55, label=label)
            ax.set_title(f"{column.title}, {protocol}")
            ax.grid(alpha=0.3)
        axes[2].axvline(PATCH**2 / (height * width), color="grey", linestyle=":", label="chance")
    grid[0, 0].set(xscale="log", ylim=(len(names) - 0.5, -0.5))
    grid[0, 0].set_yticks(range(len(names)), names)
    grid[0, 0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    grid[0, 0].xaxis.set_major_formatter("{x:g}")
    grid[0, 0].xaxis.set_minor_formatter("")
    figure.legend(*grid[0, 2].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure
