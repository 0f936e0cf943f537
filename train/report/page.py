"""The results in tables and a figure, in a page whose other text is left alone."""

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from torch_ref.report.docs import write_all_between
from torch_ref.report.tables import markdown

from ..config import flag
from ..data.source import PATCH
from ..runs import write_whole
from .outcomes import SAME, Outcome, Report, to_json
from .plan import PROGRAM, PROTOCOLS, ROWS, Options, Protocol

PAGE, PICTURE, NUMBERS = "results.md", "results.png", "results.json"
TITLES: dict[Protocol, str] = {"per_image": "an independent patch for each image", "article": "the tutorial's patches"}
SHOWN = {"ours": ("ours", "tab:orange", -0.14), "pytorch": ("PyTorch", "tab:blue", 0.14)}
MAPS = {"attended_mean": "mean of the attended map", "class_activation": "class activation"}
BY_CHANCE = 0.01  # the probability that a network which has learned nothing passes for one that has
UNTRAINED = "†"


def write_report(report: Report, folder: Path) -> list[Path]:
    """Writes page, figure and numbers, and returns their paths; of a page with marks only what is between them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / NUMBERS, to_json(report))
    draw(report).savefig(folder / PICTURE, dpi=120)
    page, parts = folder / PAGE, sections(report)
    if not page.is_file() or "<!-- runs: begin -->" not in page.read_text(encoding="utf-8"):
        marked = [f"## {name}\n\n<!-- {name}: begin -->\n<!-- {name}: end -->" for name in parts]
        write_whole(
            page, "\n\n".join(["# Results", f"![errors, accuracy and pointing game]({PICTURE})", *marked]) + "\n"
        )
    write_all_between(page, parts)
    return [page, folder / PICTURE, folder / NUMBERS]


def sections(report: Report) -> dict[str, str]:
    """The generated parts of a page, by the name of their marks."""
    parts: dict[str, str] = {}
    for kind, make in (("results", results_table), ("twins", twin_table), ("maps", map_table)):
        parts |= {f"{kind} {protocol}": make(report, protocol) for protocol in PROTOCOLS}
    return {"runs": summary(report, any(UNTRAINED in part for part in parts.values())), **parts}


def summary(report: Report, untrained: bool) -> str:
    """The command, the images, the machines, the finished and missing runs, and what the mark means, if needed."""
    words = [PROGRAM, "--data", report.options["data"]]
    for name in SAME:
        if report.options[name] != getattr(Options(), name):
            words += [flag(name), str(report.options[name])]
    hours, minutes = divmod(round(sum(run.seconds for run in report.outcomes) / 60), 60)
    height, width = report.images["image_size"]
    train, test = (end - start for start, end in (report.images["train"], report.images["test"]))
    lines = {
        "command": f"`{' '.join(words)}`",
        "runs": f"{len(report.outcomes)} of {report.planned}, in {hours} h {minutes:02d} min",
        "missing": str(report.planned - len(report.outcomes) - len(report.failed) or ""),
        "failed": ", ".join(report.failed),
        "images": f"{report.options['data']}, {report.images['images']} of {height}x{width}: "
        f"{train} training, {test} test",
        "machines": " / ".join(dict.fromkeys(run.where for run in report.outcomes)),
        UNTRAINED: "the test accuracy of at least one seed cannot be told from chance, from always giving the more "
        f"frequent answer (binomial bound, {BY_CHANCE:.0%}): such a row does not compare networks" * untrained,
    }
    return "\n".join(f"- {name}: {line}" for name, line in lines.items() if line)


def by_chance(run: Outcome) -> tuple[float, float]:
    """The share of the more frequent answer among the test images, and the accuracy up to which it may be just that.

    The latter is a quantile of the binomial distribution, by its normal approximation.
    """
    scores = run.maps["class_activation"]
    images, patched = scores["images"] or 0, scores["patched"] or 0
    share = max(patched, images - patched) / images
    return share, share + statistics.NormalDist().inv_cdf(1 - BY_CHANCE) * math.sqrt(share * (1 - share) / images)


def title(row: str, runs: Sequence[Outcome]) -> str:
    """A row's title, marked where a run has not learned anything that its test accuracy shows."""
    return ROWS[row].title + f" {UNTRAINED}" * any(run.test_accuracy <= by_chance(run)[1] for run in runs)


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


def results_table(report: Report, protocol: Protocol) -> str:
    """Our runs; under the tutorial's protocol with the tutorial's figures."""
    tutorial = ["tutorial: min train error", "min test error"] if protocol == "article" else []
    lines = []
    for name, row in ROWS.items():
        if runs := report.of(name, protocol):
            printed = [f"{value:.3g}" for value in row.tutorial or ()] or ["", ""]
            figures = [column.of(runs) for column in COLUMNS]
            lines.append([title(name, runs), *figures, str(len(runs)), *(printed if tutorial else [])])
    return table(["network", *(column.title for column in COLUMNS), "seeds", *tutorial], lines)


def twin_table(report: Report, protocol: Protocol) -> str:
    """Ours beside PyTorch's, of the seeds that both have."""
    heads = [f"{column.title}: {side}" for column in COMPARED for side, _, _ in SHOWN.values()]
    lines = []
    for name in ROWS:
        sides = report.of(name, protocol), report.of(name, protocol, "pytorch")
        seeds = {run.seed for run in sides[0]} & {run.seed for run in sides[1]}
        ours, theirs = ([run for run in runs if run.seed in seeds] for runs in sides)
        if seeds:
            pairs = [column.of(runs) for column in COMPARED for runs in (ours, theirs)]
            row = title(name, [*ours, *theirs])
            lines.append([row, str(len(seeds)), *pairs[:2], distance(ours, theirs), *pairs[2:]])
    return table(["network", "seeds", *heads[:2], "apart", *heads[2:]], lines)


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
    for name in ROWS:
        runs = report.of(name, protocol)
        for kind in dict.fromkeys(kind for run in runs for kind in run.maps):
            scores = (("pointing", share), ("energy", error), ("average_precision", share))
            cells = [score(each, each, show, kind).of(runs) for each, show in scores]
            lines.append([f"{title(name, runs)}: {MAPS.get(kind, f'`{kind}`')}", *cells])
    return table(["network and map", "pointing game", "energy", "average precision"], lines)


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table, or a word where there is nothing in it."""
    return markdown(heads, lines) if lines else "No runs yet."


def draw(report: Report) -> Figure:
    """Draws errors, accuracy and pointing game: a line per network, a dot per seed, a bar at their mean."""
    protocols = [protocol for protocol in PROTOCOLS if any(run.protocol == protocol for run in report.outcomes)]
    names = [name for name in ROWS if any(run.row == name for run in report.outcomes)]
    figure = Figure(figsize=(13, 1.4 + len(protocols) * (0.9 + 0.36 * len(names))), layout="constrained")
    grid = figure.subplots(len(protocols), len(COMPARED), sharex="col", sharey=True, squeeze=False)
    height, width = report.images["image_size"]
    for protocol, axes in zip(protocols, grid, strict=True):
        runs = [run for run in report.outcomes if run.protocol == protocol]
        for column, ax in zip(COMPARED, axes, strict=True):
            ax.set_title(column.title)
            ax.grid(alpha=0.3)
            for side, (label, colour, shift) in SHOWN.items():
                rows = {place: column.values(report.of(name, protocol, side)) for place, name in enumerate(names)}
                dots = [(value, place + shift) for place, values in rows.items() for value in values]
                means = [(statistics.fmean(values), place + shift) for place, values in rows.items() if values]
                for points, marker, size in ((dots, "o", 5), (means, "|", 13)):
                    what = f"{label}: {'each seed' if points is dots else 'mean'}"
                    if points:
                        ax.plot(
                            *zip(*points, strict=True), marker, color=colour, alpha=0.55, markersize=size, label=what
                        )
        axes[0].set_yticks(range(len(names)), [ROWS[name].title for name in names])
        axes[0].set(xscale="log", ylabel=TITLES[protocol], ylim=(len(names) - 0.5, -0.5))
        axes[1].axvline(by_chance(runs[0])[0], color="grey", linestyle=":", label="chance")
        axes[2].axvline(PATCH**2 / (height * width), color="grey", linestyle=":")
    grid[0, 0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    grid[0, 0].xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    grid[0, 0].xaxis.set_minor_formatter("")
    figure.legend(*grid[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure
