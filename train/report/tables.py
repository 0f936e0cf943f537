"""The tables of the results page, in Markdown."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .outcomes import Outcome, Report, Spread, spread
from .rows import ROWS, Protocol, Row

ACTIVATION = "class_activation"
APART = 2  # seed standard deviations by which two means may differ

Value = Callable[[Outcome], float | None]


class Column(NamedTuple):
    """A column of figures: its title, what it shows of a run, and how."""

    title: str
    value: Value
    show: Callable[[Spread | None], str]


def error(found: Spread | None) -> str:
    """An error with its spread.

    Example:
        >>> error(Spread(0.03121, 0.0042, 3)), error(Spread(0.03121, None, 1)), error(None)
        ('0.0312 ± 0.0042', '0.0312', '')
    """
    if found is None:
        return ""
    return f"{found.mean:.3g}" + ("" if found.std is None else f" ± {found.std:.2g}")


def share(found: Spread | None) -> str:
    """A share with its spread.

    Example:
        >>> share(Spread(0.98, 0.004, 3))
        '0.980 ± 0.004'
    """
    if found is None:
        return ""
    return f"{found.mean:.3f}" + ("" if found.std is None else f" ± {found.std:.3f}")


def whole(found: Spread | None) -> str:
    """A mean without digits behind the point."""
    return "" if found is None else f"{found.mean:,.0f}"


COLUMNS = (
    Column("parameters", lambda run: run.parameters, whole),
    Column("min train error", lambda run: run.min_train_error, error),
    Column("min test error", lambda run: run.min_test_error, error),
    Column("test accuracy", lambda run: run.test_accuracy, share),
    Column("pointing game", lambda run: run.pointing(), share),
    Column("images/s", lambda run: run.images_per_second, whole),
)


def results_table(report: Report, protocol: Protocol) -> str:
    """A line per row with all columns; under the tutorial's protocol its figures beside them."""
    tutorial = protocol == "article"
    heads = ["network", *(column.title for column in COLUMNS), "seeds"]
    heads += ["tutorial: min train error", "min test error"] if tutorial else []
    lines = []
    for name, row in ROWS.items():
        runs = report.of(name, protocol)
        if runs:
            figures = [column.show(spread(map(column.value, runs))) for column in COLUMNS]
            lines.append([row.title, *figures, str(len(runs)), *(_printed(row) if tutorial else [])])
    return markdown(heads, lines)


def _printed(row: Row) -> list[str]:
    return ["", ""] if row.tutorial is None else [f"{value:.3g}" for value in row.tutorial]


def twin_table(report: Report, protocol: Protocol) -> str:
    """Ours beside PyTorch's."""
    heads = ["network", "min test error: ours", "PyTorch", "apart", "accuracy: ours", "PyTorch", "pointing game: ours"]
    heads += ["PyTorch", "images/s: ours", "PyTorch"]
    lines = []
    for name, row in ROWS.items():
        ours, theirs = report.of(name, protocol), report.of(name, protocol, "pytorch")
        if ours and theirs:
            pairs = [column.show(spread(map(column.value, runs))) for column in COLUMNS[2:] for runs in (ours, theirs)]
            lines.append([row.title, *pairs[:2], deviations(distance(ours, theirs)), *pairs[2:]])
    return markdown(heads, lines)


def short_table(report: Report) -> str:
    """What matters most, for the README: patches of each image's own, ours and the PyTorch twin's."""
    heads = ["network", "min test error", "its PyTorch twin's", "test accuracy", "pointing game"]
    lines = []
    for name, row in ROWS.items():
        ours, theirs = report.of(name, "per_image"), report.of(name, "per_image", "pytorch")
        if ours:
            figures = [column.show(spread(map(column.value, ours))) for column in COLUMNS[2:5]]
            lines.append([row.title, figures[0], error(spread(run.min_test_error for run in theirs)), *figures[1:]])
    return markdown(heads, lines)


def distance(ours: Sequence[Outcome], theirs: Sequence[Outcome], value: Value = COLUMNS[2].value) -> float | None:
    """How far two means are apart, ours minus theirs, in seed standard deviations; None where there are none to tell.

    The standard deviation is that over the seeds of either side, the root of the mean of both variances.
    """
    a, b = spread(map(value, ours)), spread(map(value, theirs))
    if a is None or b is None or a.std is None or b.std is None:
        return None
    deviation = math.sqrt((a.std**2 + b.std**2) / 2)
    return (a.mean - b.mean) / deviation if deviation else (0.0 if a.mean == b.mean else math.inf)


def deviations(found: float | None) -> str:
    """A distance in standard deviations.

    Example:
        >>> deviations(-0.513), deviations(None)
        ('-0.51 sd', '')
    """
    return "" if found is None else f"{found:+.2f} sd"


def map_table(report: Report, protocol: Protocol) -> str:
    """All maps of all networks and where they point."""
    lines = []
    for name, row in ROWS.items():
        runs = report.of(name, protocol)
        for kind in dict.fromkeys(kind for run in runs for kind in run.maps):
            scores = [
                show(spread(run.maps[kind][score] for run in runs if kind in run.maps))
                for score, show in (("pointing", share), ("energy", error), ("average_precision", share))
            ]
            lines.append([row.title, kind.replace("_", " ") if "." not in kind else f"`{kind}`", *scores])
    return markdown(["network", "map", "pointing game", "energy", "average precision"], lines, words=2)


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table whose first columns are words and whose others are figures.

    Example:
        >>> print(markdown(["network", "error"], [["CNN", "0.1"]]))
        | network | error |
        |---|---:|
        | CNN | 0.1 |
    """
    rule = ["---"] * words + ["---:"] * (len(heads) - words)
    table = [f"| {' | '.join(line)} |" for line in (heads, *lines)]
    return "\n".join([table[0], f"|{'|'.join(rule)}|", *table[1:]])
