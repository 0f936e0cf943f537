"""The results in tables and a figure: a page of their own, or the generated parts of docs/results.md."""

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, StrMethodFormatter

from torch_ref.report.docs import write_all_between

from ..config import flag
from ..data.source import PATCH
from ..runs import write_whole
from .outcomes import Outcome, Report, to_json
from .plan import PROGRAM, PROTOCOLS, ROWS, Options, Protocol

PAGE, PICTURE, NUMBERS = "results.md", "results.png", "results.json"
TITLES: dict[Protocol, str] = {"per_image": "an independent patch for each image", "article": "the tutorial's patches"}
ELSEWHERE = ("runs", "out", "known", "docs", "renew", "train")  # options on which no figure depends
SIDES = {"ours": ("ours", "tab:orange", -0.14), "pytorch": ("PyTorch", "tab:blue", 0.14)}
MAPS = {"attended_mean": "mean of the attended map", "class_activation": "class activation"}


def write_report(report: Report, folder: Path) -> list[Path]:
    """Writes the page, the figure and the numbers; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = _write_figures(report, folder)
    parts = [f"## {name}\n\n{part}" for name, part in sections(report).items()]
    page = "\n\n".join(["# Results", f"![errors, accuracy and pointing game]({PICTURE})", *parts])
    write_whole(folder / PAGE, page + "\n")
    return [folder / PAGE, *paths]


def write_docs(report: Report, docs: Path) -> list[Path]:
    """Writes the figure and the numbers, and replaces the tables in the hand-written page; returns their paths."""
    write_all_between(docs / PAGE, sections(report))
    return [docs / PAGE, *_write_figures(report, docs)]


def _write_figures(report: Report, folder: Path) -> list[Path]:
    write_whole(folder / NUMBERS, to_json(report))
    compose(report).savefig(folder / PICTURE, dpi=120)
    return [folder / PICTURE, folder / NUMBERS]


def sections(report: Report) -> dict[str, str]:
    """The generated parts of a page, by the name of their marks."""
    parts = {"runs": summary(report)}
    for kind, make in (("results", results_table), ("twins", twin_table), ("maps", map_table)):
        parts |= {f"{kind} {protocol}": make(report, protocol) for protocol in PROTOCOLS}
    return parts


def summary(report: Report) -> str:
    """The command, the images, the machines, and the finished and missing runs."""
    words = [PROGRAM]
    for name, value in report.options.items():
        given = tuple(value) if isinstance(value, list) else value
        if given is not None and given != getattr(Options(), name, None) and name not in ELSEWHERE:
            words += [flag(name), *map(str, given if isinstance(given, tuple) else [given])]
    hours, minutes = divmod(round(sum(run.seconds for run in report.outcomes) / 60), 60)
    height, width = report.images["image_size"]
    train, test = (end - start for start, end in (report.images["train"], report.images["test"]))
    lines = {
        "command": f"`{' '.join(words)}`",
        "runs": f"{len(report.outcomes)} of {report.planned}, in {hours} h {minutes:02d} min without killed attempts",
        "missing": str(report.planned - len(report.outcomes) - len(report.failed) or ""),
        "failed": ", ".join(report.failed),
        "images": f"{report.options['data']}, {report.images['images']} of {height}x{width}: "
        f"{train} training, {test} test",
        "machines": " / ".join(dict.fromkeys(run.where for run in report.outcomes)),
    }
    return "\n".join(f"- {name}: {line}" for name, line in lines.items() if line)


def error(values: Sequence[float]) -> str:
    """The mean over seeds, with the sample's standard deviation to two digits, as in 0.20 ± 0.14."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0
    if deviation:
        decimals = max(0, 1 - math.floor(math.log10(deviation)))
        return f"{statistics.fmean(values):.{decimals}f} ± {deviation:.{decimals}f}"
    return f"{statistics.fmean(values):#.3g}".rstrip(".") + " ± 0" * (len(values) > 1) if values else ""


def share(values: Sequence[float]) -> str:
    """The mean and the standard deviation of a share."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}" if values else ""


def whole(values: Sequence[float]) -> str:
    """The mean without decimals."""
    return f"{statistics.fmean(values):,.0f}"


class Column(NamedTuple):
    """A column of figures: its title, its value for a run, and its format."""

    title: str
    value: Callable[[Outcome], float | None]
    show: Callable[[Sequence[float]], str]

    def values(self, runs: Sequence[Outcome]) -> list[float]:
        """The values of the runs that have one."""
        return [value for run in runs if (value := self.value(run)) is not None]

    def of(self, runs: Sequence[Outcome]) -> str:
        """The cell for the seeds of a row."""
        return self.show(self.values(runs))


def score(name: str, title: str, show: Callable[[Sequence[float]], str], of: str = "class_activation") -> Column:
    """A column with a score of a map, as in localisation.json."""
    return Column(title, lambda run: run.maps.get(of, {}).get(name), show)


COLUMNS = (
    Column("parameters", lambda run: run.parameters, whole),
    Column("min train error", lambda run: min(run.train_errors), error),
    Column("min test error", lambda run: min(run.test_errors), error),
    Column("test accuracy", lambda run: run.test_accuracy, share),
    score("pointing", "pointing game", share),
    Column("images/s", lambda run: run.images_per_second, whole),
)
COMPARED = COLUMNS[2:5]  # without speed: the two sides' runs may have shared the machine with others


def chance(report: Report) -> float:
    """The patch's share of the area: how often a random peak would lie in it."""
    height, width = report.images["image_size"]
    return float(PATCH**2 / (height * width))


def results_table(report: Report, protocol: Protocol) -> str:
    """Our runs; under the tutorial's protocol with the tutorial's figures."""
    tutorial = ["tutorial: min train error", "min test error"] if protocol == "article" else []
    lines = []
    for name, row in ROWS.items():
        if runs := report.of(name, protocol):
            printed = [f"{value:.3g}" for value in row.tutorial] if row.tutorial else ["", ""]
            figures = [column.of(runs) for column in COLUMNS]
            lines.append([row.title, *figures, str(len(runs)), *(printed if tutorial else [])])
    return markdown(["network", *(column.title for column in COLUMNS), "seeds", *tutorial], lines)


def twin_table(report: Report, protocol: Protocol) -> str:
    """Ours beside PyTorch's, of the seeds that both have."""
    heads = [f"{column.title}: {side}" for column in COMPARED for side, _, _ in SIDES.values()]
    lines = []
    for name, row in ROWS.items():
        sides = report.of(name, protocol), report.of(name, protocol, "pytorch")
        seeds = {run.seed for run in sides[0]} & {run.seed for run in sides[1]}
        ours, theirs = ([run for run in runs if run.seed in seeds] for runs in sides)
        if seeds:
            pairs = [column.of(runs) for column in COMPARED for runs in (ours, theirs)]
            lines.append([row.title, str(len(seeds)), *pairs[:2], distance(ours, theirs), *pairs[2:]])
    return markdown(["network", "seeds", *heads[:2], "apart", *heads[2:]], lines)


def distance(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> str:
    """The mean of our smallest test errors minus PyTorch's, in standard deviations.

    The standard deviation is that over the seeds, the root of the mean of both sides' variances.
    """
    a, b = ([min(run.test_errors) for run in runs] for runs in (ours, theirs))
    if len(a) < 2:
        return ""
    apart = statistics.fmean(a) - statistics.fmean(b)
    deviation = math.sqrt((statistics.variance(a) + statistics.variance(b)) / 2)
    return f"{apart / deviation if deviation else math.copysign(math.inf, apart) if apart else 0.0:+.2f} sd"


def map_table(report: Report, protocol: Protocol) -> str:
    """Where all maps of our networks point."""
    lines = []
    for name, row in ROWS.items():
        runs = report.of(name, protocol)
        for kind in dict.fromkeys(kind for run in runs for kind in run.maps):
            scores = (("pointing", share), ("energy", error), ("average_precision", share))
            cells = [score(each, each, show, kind).of(runs) for each, show in scores]
            lines.append([row.title, MAPS.get(kind, f"`{kind}`"), *cells])
    return markdown(["network", "map", "pointing game", "energy", "average precision"], lines, words=2)


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose first columns are words and whose others are figures."""
    if not lines:
        return "No runs yet."
    rule = ["---"] * words + ["---:"] * (len(heads) - words)
    first, *others = (f"| {' | '.join(line)} |" for line in (heads, *lines))
    return "\n".join([first, f"|{'|'.join(rule)}|", *others])


def compose(report: Report) -> Figure:
    """Draws errors, accuracy and pointing game: a line per network, a dot per seed, a bar at their mean."""
    protocols = [protocol for protocol in PROTOCOLS if any(run.protocol == protocol for run in report.outcomes)]
    names = [name for name in ROWS if any(run.row == name for run in report.outcomes)]
    figure = Figure(figsize=(13, 1.4 + len(protocols) * (0.9 + 0.36 * len(names))), layout="constrained")
    grid = figure.subplots(len(protocols), len(COMPARED), sharex="col", sharey=True, squeeze=False)
    for protocol, axes in zip(protocols, grid, strict=True):
        for column, ax in zip(COMPARED, axes, strict=True):
            ax.set_title(column.title)
            ax.grid(alpha=0.3)
            ax.tick_params(labelbottom=True)
            for place, name in enumerate(names):
                for side, (_, colour, shift) in SIDES.items():
                    if values := column.values(report.of(name, protocol, side)):
                        y, mean = place + shift, statistics.fmean(values)
                        ax.plot(values, [y] * len(values), "o", color=colour, alpha=0.55, markersize=5)
                        ax.plot([mean], [y], "|", color=colour, markersize=13, markeredgewidth=2)
        axes[0].set_yticks(range(len(names)), [ROWS[name].title for name in names])
        axes[0].set(ylabel=TITLES[protocol], ylim=(len(names) - 0.5, -0.5))
        axes[2].axvline(chance(report), color="grey", linestyle=":")
        axes[2].set_title("pointing game: class activation map")
    errors = [min(run.test_errors) for run in report.outcomes]
    limits = min(min(errors) / 1.2, max(errors) / 10), max(errors) * 1.2  # at least a decade
    grid[0, 0].set(xscale="log", xlim=limits)
    grid[0, 0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    grid[0, 0].xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    grid[0, 0].xaxis.set_minor_formatter("")
    grid[0, 1].set_xlim(right=1.005)
    grid[0, 2].set_xlim(-0.03, 1.03)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=f"{title}, a dot for each seed")
        for side, (title, colour, _) in SIDES.items()
        if any(run.side == side for run in report.outcomes)
    ]
    handles.append(Line2D([], [], marker="|", linestyle="", color="k", markersize=13, markeredgewidth=2, label="mean"))
    handles.append(Line2D([], [], color="grey", linestyle=":", label="chance"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure
