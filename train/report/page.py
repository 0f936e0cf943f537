"""The results in tables and a figure: a page of their own, or the generated parts of docs/results.md."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, StrMethodFormatter

from torch_ref.report.docs import write_between

from ..data.source import PATCH
from ..runs import write_whole
from .outcomes import Outcome, Report, Spread, spread, to_json
from .plan import PROGRAM, PROTOCOLS, ROWS, Options, Protocol

PAGE, PICTURE, NUMBERS = "results.md", "results.png", "results.json"
TITLES: dict[Protocol, str] = {"per_image": "an independent patch for each image", "article": "the tutorial's patches"}
ELSEWHERE = ("runs", "out", "known", "docs", "renew", "train")  # options on which no figure depends
COLOURS = {"ours": ("tab:orange", -0.14), "pytorch": ("tab:blue", 0.14)}


def write_report(report: Report, folder: Path) -> list[Path]:
    """Writes the page, the figure and the numbers; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = write_files(report, folder)
    parts = [f"## {name}\n\n{part}" for name, part in sections(report).items()]
    page = "\n\n".join(["# Results", f"![errors, accuracy and pointing game]({PICTURE})", *parts])
    write_whole(folder / PAGE, page + "\n")
    return [folder / PAGE, *paths]


def write_docs(report: Report, docs: Path) -> list[Path]:
    """Writes the figure and the numbers, and replaces the tables in the hand-written page; returns their paths.

    Raises:
        ValueError: the page lacks a mark; nothing is written then.
    """
    parts, text = sections(report), (docs / PAGE).read_text(encoding="utf-8")
    for name in parts:
        if f"<!-- {name}: begin -->" not in text or f"<!-- {name}: end -->" not in text:
            raise ValueError(f"{docs / PAGE} must contain <!-- {name}: begin --> and <!-- {name}: end -->")
    for name, part in parts.items():
        write_between(docs / PAGE, name, part)
    return [docs / PAGE, *write_files(report, docs)]


def write_files(report: Report, folder: Path) -> list[Path]:
    """Writes the figure and the numbers."""
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
    hours, minutes = divmod(round(sum(run.seconds for run in report.outcomes) / 60), 60)
    height, width = report.images["image_size"]
    train, test = report.images["train"], report.images["test"]
    missing = report.planned - len(report.outcomes) - len(report.failed)
    lines = {
        "command": f"`{command(report)}`",
        "runs": f"{len(report.outcomes)} of {report.planned}, in {hours} h {minutes:02d} min without killed attempts",
        "missing": str(missing or ""),
        "failed": ", ".join(report.failed),
        "images": f"{report.options['data']}, {report.images['images']} of {height}x{width}: "
        f"{train[1] - train[0]} training, {test[1] - test[0]} test",
        "machines": " / ".join(dict.fromkeys(run.where for run in report.outcomes)),
    }
    return "\n".join(f"- {name}: {line}" for name, line in lines.items() if line)


def command(report: Report) -> str:
    """The command line that gives these figures."""
    words = [PROGRAM]
    for name, value in report.options.items():
        given = tuple(value) if isinstance(value, list) else value
        if given is not None and given != getattr(Options(), name, None) and name not in ELSEWHERE:
            words += [f"--{name.replace('_', '-')}", *map(str, given if isinstance(given, tuple) else [given])]
    return " ".join(words)


def error(found: Spread | None) -> str:
    """An error with its standard deviation, to two digits of that.

    Example:
        >>> error(Spread(0.03121, 0.0042)), error(Spread(0.2781, 0.0201)), error(Spread(0.03121, None)), error(None)
        ('0.0312 ± 0.0042', '0.278 ± 0.020', '0.0312', '')
    """
    if found is None:
        return ""
    if not found.std:
        return f"{found.mean:#.3g}".rstrip(".") + ("" if found.std is None else " ± 0")
    decimals = max(0, 1 - math.floor(math.log10(found.std)))
    return f"{found.mean:.{decimals}f} ± {found.std:.{decimals}f}"


def share(found: Spread | None) -> str:
    """A share with its standard deviation.

    Example:
        >>> share(Spread(0.98, 0.004))
        '0.980 ± 0.004'
    """
    if found is None:
        return ""
    return f"{found.mean:.3f}" + ("" if found.std is None else f" ± {found.std:.3f}")


def whole(found: Spread | None) -> str:
    """A mean without decimals."""
    return "" if found is None else f"{found.mean:,.0f}"


class Column(NamedTuple):
    """A column of figures: its title, its value for a run, and its format."""

    title: str
    value: Callable[[Outcome], float | None]
    show: Callable[[Spread | None], str]

    def of(self, runs: Sequence[Outcome]) -> str:
        """The cell for the seeds of a row."""
        return self.show(spread(map(self.value, runs)))


COLUMNS = (
    Column("parameters", lambda run: run.parameters, whole),
    Column("min train error", lambda run: min(run.train_errors), error),
    Column("min test error", lambda run: min(run.test_errors), error),
    Column("test accuracy", lambda run: run.test_accuracy, share),
    Column("pointing game", lambda run: run.pointing(), share),
    Column("images/s", lambda run: run.images_per_second, whole),
)
COMPARED = COLUMNS[2:5]  # without speed: the two sides' runs may have shared the machine with others


def chance(report: Report) -> float:
    """The patch's share of the area: how often a random peak would lie in it."""
    height, width = report.images["image_size"]
    return float(PATCH**2 / (height * width))


def results_table(report: Report, protocol: Protocol) -> str:
    """Our runs; under the tutorial's protocol with the tutorial's figures."""
    tutorial = protocol == "article"
    heads = ["network", *(column.title for column in COLUMNS), "seeds"]
    heads += ["tutorial: min train error", "min test error"] if tutorial else []
    lines = []
    for name, row in ROWS.items():
        if runs := report.of(name, protocol):
            printed = [f"{value:.3g}" for value in row.tutorial] if row.tutorial else ["", ""]
            figures = [column.of(runs) for column in COLUMNS]
            lines.append([row.title, *figures, str(len(runs)), *(printed if tutorial else [])])
    return markdown(heads, lines)


def twin_table(report: Report, protocol: Protocol) -> str:
    """Ours beside PyTorch's, of the seeds that both have."""
    heads = [f"{column.title}: {side}" for column in COMPARED for side in ("ours", "PyTorch")]
    lines = []
    for name, row in ROWS.items():
        sides = report.of(name, protocol), report.of(name, protocol, "pytorch")
        seeds = {run.seed for run in sides[0]} & {run.seed for run in sides[1]}
        ours, theirs = ([run for run in runs if run.seed in seeds] for runs in sides)
        if seeds:
            pairs = [column.of(runs) for column in COMPARED for runs in (ours, theirs)]
            apart = distance(ours, theirs)
            cell = "" if apart is None else f"{apart:+.2f} sd"
            lines.append([row.title, str(len(seeds)), *pairs[:2], cell, *pairs[2:]])
    return markdown(["network", "seeds", *heads[:2], "apart", *heads[2:]], lines)


def distance(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> float | None:
    """The mean of our smallest test errors minus PyTorch's, in standard deviations; None where a side has none.

    The standard deviation is that over the seeds, the root of the mean of both sides' variances.
    """
    a, b = (spread(min(run.test_errors) for run in runs) for runs in (ours, theirs))
    if a is None or b is None or a.std is None or b.std is None:
        return None
    deviation, apart = math.sqrt((a.std**2 + b.std**2) / 2), a.mean - b.mean
    return apart / deviation if deviation else (math.copysign(math.inf, apart) if apart else 0.0)


def map_table(report: Report, protocol: Protocol) -> str:
    """Where all maps of our networks point."""
    names = {"attended_mean": "mean of the attended map", "class_activation": "class activation"}
    lines = []
    for name, row in ROWS.items():
        runs = report.of(name, protocol)
        for kind in dict.fromkeys(kind for run in runs for kind in run.maps):
            scores = [
                show(spread(run.maps[kind][score] for run in runs if kind in run.maps))
                for score, show in (("pointing", share), ("energy", error), ("average_precision", share))
            ]
            lines.append([row.title, names.get(kind, f"`{kind}`"), *scores])
    return markdown(["network", "map", "pointing game", "energy", "average precision"], lines, words=2)


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table whose first columns are words and whose others are figures.

    Example:
        >>> print(markdown(["network", "error"], [["CNN", "0.1"]]))
        | network | error |
        |---|---:|
        | CNN | 0.1 |
    """
    cells = [f"| {' | '.join(line)} |" for line in lines]
    if not cells:
        return "No runs yet."
    rule = ["---"] * words + ["---:"] * (len(heads) - words)
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'|'.join(rule)}|", *cells])


def compose(report: Report) -> Figure:
    """Draws errors, accuracy and pointing game: a line per network, a dot per seed, a bar at their mean."""
    protocols = [protocol for protocol in PROTOCOLS if any(run.protocol == protocol for run in report.outcomes)]
    names = [name for name in ROWS if any(run.row == name for run in report.outcomes)]
    figure = Figure(figsize=(13, 1.4 + len(protocols) * (0.9 + 0.36 * len(names))), layout="constrained")
    parts = figure.subfigures(len(protocols), 1, squeeze=False)[:, 0]
    for protocol, part in zip(protocols, parts, strict=True):
        part.suptitle(TITLES[protocol])
        axes = part.subplots(1, len(COMPARED), sharey=True)
        for column, ax in zip(COMPARED, axes, strict=True):
            ax.set_title(column.title)
            ax.grid(alpha=0.3)
            for side, (colour, shift) in COLOURS.items():
                for place, name in enumerate(names):
                    _draw_seeds(ax, map(column.value, report.of(name, protocol, side)), place + shift, colour)
        axes[0].set_yticks(range(len(names)), [ROWS[name].title for name in names])
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        axes[2].axvline(chance(report), color="grey", linestyle=":")
        axes[2].set_title("pointing game: class activation map")
        _scale(axes, report)
    sides = {"ours": "ours, a dot for each seed", "pytorch": "PyTorch, a dot for each seed"}
    handles = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS[side][0], label=label)
        for side, label in sides.items()
        if any(run.side == side for run in report.outcomes)
    ]
    handles.append(Line2D([], [], marker="|", linestyle="", color="k", markersize=13, markeredgewidth=2, label="mean"))
    handles.append(Line2D([], [], color="grey", linestyle=":", label="chance"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_seeds(ax: Axes, values: Iterable[float | None], place: float, colour: str) -> None:
    shown = [value for value in values if value is not None]
    if found := spread(shown):
        ax.plot(shown, [place] * len(shown), "o", color=colour, alpha=0.55, markersize=5)
        ax.plot([found.mean], [place], "|", color=colour, markersize=13, markeredgewidth=2)


def _scale(axes: Sequence[Axes], report: Report) -> None:
    """The same scales under all protocols, at least a decade of errors."""
    errors = [min(run.test_errors) for run in report.outcomes]
    lowest = min(run.test_accuracy for run in report.outcomes)
    axes[0].set(xscale="log", xlabel="logarithmic", xlim=(min(min(errors) / 1.2, max(errors) / 10), max(errors) * 1.2))
    axes[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[0].xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes[0].xaxis.set_minor_formatter("")
    axes[1].set_xlim(lowest - 0.05 * (1 - lowest) - 0.005, 1.005)
    axes[2].set_xlim(-0.03, 1.03)
