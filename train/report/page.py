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
from .outcomes import SAME, Outcome, Report
from .plan import PROGRAM, PROTOCOLS, ROWS, Options

PAGE, PICTURE, NUMBERS = "results.md", "results.png", "results.json"
SHOWN = {"ours": ("ours", "tab:orange", -0.14), "pytorch": ("PyTorch", "tab:blue", 0.14)}
MAPS = {"attended_mean": "mean of the attended map", "class_activation": "class activation"}
BY_CHANCE = 0.01  # the probability that a network which has learned nothing passes for one that has
UNTRAINED = "†"

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
    """Writes page, figure and numbers, and returns their paths; of a page with marks only what is between them."""
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
    """The command, the images, the machines, the finished and missing runs, and what the mark means, if needed."""
    options = [name for name in SAME if report.options[name] != getattr(Options(), name)]
    words = [word for name in options for word in (flag(name), str(report.options[name]))]
    hours, minutes = divmod(round(sum(run.seconds for run in report.outcomes) / 60), 60)
    height, width = report.images["image_size"]
    train, test = (end - start for start, end in (report.images["train"], report.images["test"]))
    lines = {
        "command": f"`{' '.join([PROGRAM, '--data', report.options['data'], *words])}`",
        "runs": f"{len(report.outcomes)} of {report.planned}, in {hours} h {minutes:02d} min",
        "failed": ", ".join(report.failed),
        "images": f"{report.images['images']} of {height}x{width}: {train} training, {test} test",
        "machines": " / ".join(dict.fromkeys(run.where for run in report.outcomes)),
        UNTRAINED: "the test accuracy of at least one seed cannot be told from that of always giving the more frequent "
        f"answer (binomial bound, {BY_CHANCE:.0%}), so the row says nothing about the network",
    }
    if not any(map(is_untrained, report.outcomes)):
        del lines[UNTRAINED]
    return "\n".join(f"- {name}: {line}" for name, line in lines.items() if line)


def by_chance(run: Outcome) -> float:
    """The accuracy of always giving the more frequent answer."""
    scores = run.maps["class_activation"]
    images, patched = scores["images"] or 0, scores["patched"] or 0
    return max(patched, images - patched) / images


def is_untrained(run: Outcome) -> bool:
    """Whether the test accuracy may be chance: a quantile of the binomial distribution, approximately."""
    share, images = by_chance(run), run.maps["class_activation"]["images"] or 0
    deviation = math.sqrt(share * (1 - share) / images)
    return run.test_accuracy <= share + statistics.NormalDist().inv_cdf(1 - BY_CHANCE) * deviation


def title(row: str, runs: Sequence[Outcome]) -> str:
    """A row's name, with the mark where it belongs."""
    return f"`{row}`" + f" {UNTRAINED}" * any(map(is_untrained, runs))


def results_table(report: Report, protocol: str) -> Table:
    """Our runs."""
    rows = {name: report.of(name, protocol) for name in ROWS}
    lines = [
        [title(name, runs), *(column.of(runs) for column in COLUMNS), str(len(runs))]
        for name, runs in rows.items()
        if runs
    ]
    return ["network", *(column.title for column in COLUMNS), "seeds"], lines


def twin_table(report: Report, protocol: str) -> Table:
    """Ours beside PyTorch's, of the seeds that both have."""
    heads = [f"{column.title}: {side}" for column in COMPARED for side in ("ours", "PyTorch")]
    lines = []
    for name in ROWS:
        sides = report.of(name, protocol), report.of(name, protocol, "pytorch")
        seeds = {run.seed for run in sides[0]} & {run.seed for run in sides[1]}
        ours, theirs = ([run for run in runs if run.seed in seeds] for runs in sides)
        if seeds:
            pairs = [column.of(runs) for column in COMPARED for runs in (ours, theirs)]
            row = title(name, [*ours, *theirs])
            lines.append([row, str(len(seeds)), *pairs[:2], distance(ours, theirs), *pairs[2:]])
    return ["network", "seeds", *heads[:2], "apart", *heads[2:]], lines


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
            lines.append([f"{title(name, runs)}: {MAPS.get(kind, f'`{kind}`')}", *cells])
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
        axes[1].axvline(by_chance(runs[0]), color="grey", linestyle=":", label="chance")
        axes[2].axvline(PATCH**2 / (height * width), color="grey", linestyle=":")
    grid[0, 0].set(xscale="log", ylim=(len(names) - 0.5, -0.5))
    grid[0, 0].set_yticks(range(len(names)), names)
    grid[0, 0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    grid[0, 0].xaxis.set_major_formatter("{x:g}")
    grid[0, 0].xaxis.set_minor_formatter("")
    figure.legend(*grid[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure
