"""What a speed run looks like: tables for the terminal and the documents, and the plot."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..report.tables import markdown
from .figures import COMPILED, FORMS, OURS, WRITTEN, Figure, SpeedRun
from .timing import exponent

Table = tuple[list[str], list[list[str]]]


def time_table(figures: Sequence[Figure]) -> Table:
    """Milliseconds, and PyTorch's time over ours: above 1 ours is faster."""
    columns = list(dict.fromkeys(column for figure in figures for column in figure.seconds if column not in FORMS))
    columns += [form for form in FORMS if any(form in figure.seconds for figure in figures)]
    lines = []
    for figure in _timed(figures):
        times = [number(1000 * figure.seconds.get(column, math.nan)) for column in columns]
        ratios = [number(figure.seconds.get(WRITTEN, math.nan) / figure.ours), number(figure.best / figure.ours)]
        lines.append([*_what(figure), *times, *ratios, figure.mark])
    return [*HEAD, *columns, "as written / ours", "best / ours", "load"], lines


def more_table(figures: Sequence[Figure]) -> Table:
    """Images a second, share of the machine's rates, MiB of memory, and seconds of the first call; ours / PyTorch's."""
    lines = []
    for figure in _timed(figures):
        compiled = [seconds for column, seconds in figure.first.items() if column != COMPILED]
        least = [bytes_ for side, bytes_ in figure.memory.items() if side != OURS and bytes_ is not None]
        pairs = [
            (figure.batch / figure.ours, figure.batch / figure.best),
            (100 * figure.least / figure.ours, 100 * figure.least / figure.best),
            (
                mebibytes(figure.memory.get(OURS)),
                mebibytes(figure.memory.get(WRITTEN)),
                mebibytes(min(least, default=None)),
            ),
            ([*compiled, math.nan][0], figure.first.get(COMPILED, math.nan)),  # further layouts find it traced
        ]
        lines.append([*_what(figure), *(" / ".join(map(number, pair)) for pair in pairs), figure.mark])
    head = ["images a second", "% of the machine", "memory, MiB (ours / as written / least)", "first call, s", "load"]
    return [*HEAD, *head], lines


def _timed(figures: Iterable[Figure]) -> list[Figure]:
    return [figure for figure in figures if figure.seconds]


HEAD = ["what", "batch", "map", "work"]


def _what(figure: Figure) -> list[str]:
    return [figure.name, str(figure.batch), "x".join(map(str, figure.size)), figure.work]


def growth_table(run: SpeedRun) -> Table:
    """The exponents of time and memory along each axis: ours / the twin's as written."""
    names = list(dict.fromkeys(figure.name for figures in run.growth.values() for figure in figures))
    lines = [
        [
            name,
            *(f"{_fit(run, name, axis, kind, OURS)} / {_fit(run, name, axis, kind, WRITTEN)}" for axis, kind in KINDS),
        ]
        for name in names
    ]
    return ["block", *(f"{axis}: {kind}" for axis, kind in KINDS)], lines


KINDS = [(axis, kind) for axis in ("tokens", "batch", "channels") for kind in ("time", "memory")]


def points(run: SpeedRun, name: str, axis: str, kind: str, side: str) -> tuple[list[float], list[float]]:
    """Sizes and values of a block along an axis, without those that could not be measured."""
    found = []
    for figure in run.growth.get(axis, []):
        height, width, channels = figure.size
        size = {"tokens": height * width, "batch": figure.batch, "channels": channels}[axis]
        seconds = figure.ours if side == OURS else figure.seconds.get(side, math.nan)
        value = 1000 * seconds if kind == "time" else mebibytes(figure.memory.get(side))
        if figure.name == name and value > 0:
            found.append((float(size), value))
    return [size for size, _ in found], [value for _, value in found]


def _fit(run: SpeedRun, name: str, axis: str, kind: str, side: str) -> str:
    sizes, values = points(run, name, axis, kind, side)
    return f"{exponent(sizes, values):.2f}" if len(sizes) > 1 else "-"


def number(value: float) -> str:
    """Three digits.

    Example:
        >>> number(1234.5), number(12.345), number(0.01234), number(float("nan"))
        ('1,234', '12.3', '0.012', '-')
    """
    if math.isnan(value):
        return "-"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f}"


def mebibytes(value: float | None) -> float:
    return math.nan if value is None else value / 2**20


def describe(run: SpeedRun) -> str:
    """Where the figures were taken, in a sentence."""
    versions = ", ".join(f"{name} {number}" for name, number in run.versions.items())
    return (
        f"{run.hardware} ({run.platform}), {run.threads} threads in PyTorch; {versions}; a matrix product at "
        f"{number(run.rates.operations / 1e9)} GFLOP/s, a copy at {number(run.rates.bytes / 1e9)} GB/s."
    )


def run_markdown(run: SpeedRun) -> str:
    """All tables, for the documents."""
    parts = [describe(run)]
    if run.figures:
        parts += ["### Times, ms", _markdown(time_table(run.figures))]
        parts += ["### Images, memory and first calls", _markdown(more_table(run.figures)), *_notes(run.figures)]
    if run.growth:
        parts += ["### Exponents", _markdown(growth_table(run))]
    return "\n\n".join(parts)


def _markdown(table: Table) -> str:
    return markdown(*without_empty(table))


def without_empty(table: Table) -> Table:
    """The table without columns that say nothing."""
    head, lines = table
    kept = [place for place in range(len(head)) if any(line[place] for line in lines)]
    return [head[place] for place in kept], [[line[place] for place in kept] for line in lines]


def _notes(figures: Iterable[Figure]) -> list[str]:
    notes = dict.fromkeys(
        f"- {f.name}, batch {f.batch}, map {'x'.join(map(str, f.size))}, {side}: {why}"
        for f in figures
        for side, why in f.notes.items()
    )
    return ["\n".join(notes)] if notes else []


def print_run(run: SpeedRun) -> None:
    """Prints the tables and where they were taken."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(width=None if Console().is_terminal else 200)
    named = {
        "milliseconds": time_table(run.figures),
        "ours / PyTorch's best": more_table(run.figures),
        "exponents of forward + backward, ours / as written": growth_table(run),
    }
    for title, table in named.items():
        head, lines = without_empty(table)
        if lines:
            shown = RichTable(title=title)
            for place, name in enumerate(head):
                shown.add_column(name, justify="right" if place and name != "work" else "left")
            for line in lines:
                shown.add_row(*(Text(cell, style="red" if cell.startswith("busy") else "") for cell in line))
            console.print(shown)
    for text in [*_notes(run.all_figures), describe(run)]:
        console.print(Text(text), soft_wrap=True)


def save_plot(run: SpeedRun, path: Path) -> None:
    """Draws growth on log axes, where it was measured, else the ratios to PyTorch's best. Needs matplotlib."""
    from matplotlib.figure import Figure as Picture

    names = list(dict.fromkeys(figure.name for figures in run.growth.values() for figure in figures))
    if not names:
        figures = _timed(run.figures)
        picture = Picture(figsize=(8, 1 + 0.25 * len(figures)), layout="constrained")
        axes: Any = picture.add_subplot()
        labels = [", ".join(_what(figure)) for figure in figures]
        axes.barh(range(len(labels)), [figure.best / figure.ours for figure in figures])
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlabel("time of PyTorch's best / ours")
    else:
        picture = Picture(figsize=(13, 8), layout="constrained")
        panels = picture.subplots(2, 3)
        for place, (axis, kind) in enumerate(KINDS):
            axes = panels[place % 2][place // 2]
            for index, name in enumerate(names):
                for side, style in ((OURS, "o-"), (WRITTEN, "x--")):
                    label = f"{name.split('/')[1]} {_fit(run, name, axis, kind, side)}" if side == OURS else None
                    axes.loglog(*points(run, name, axis, kind, side), style, color=f"C{index % 10}", label=label)
            sizes = sorted({size for name in names for size in points(run, name, axis, kind, OURS)[0]})
            axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
            axes.minorticks_off()
            axes.set(xlabel=axis, ylabel="ms" if kind == "time" else "MiB")
            axes.legend(fontsize=7)
        picture.suptitle("forward + backward: ours (solid, with exponent) and the twin as written (dashed)")
    picture.savefig(path)
