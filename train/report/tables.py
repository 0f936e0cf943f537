"""The tables of the results page, in Markdown."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..data.source import PATCH
from .outcomes import Outcome, Report, Spread, spread
from .rows import ROWS, Protocol, Row

APART = 2  # seed standard deviations by which two means may differ

Value = Callable[[Outcome], float | None]


class Column(NamedTuple):
    """A column of figures: its title, what it shows of a run, and how."""

    title: str
    value: Value
    show: Callable[[Spread | None], str]


def error(found: Spread | None) -> str:
    """An error with its spread, to two digits of that.

    Example:
        >>> error(Spread(0.03121, 0.0042, 3)), error(Spread(0.2781, 0.0201, 2))
        ('0.0312 ± 0.0042', '0.278 ± 0.020')
        >>> error(Spread(0.03121, None, 1)), error(None)
        ('0.0312', '')
    """
    if found is None:
        return ""
    if not found.std:
        return f"{found.mean:#.3g}".rstrip(".") + ("" if found.std is None else " ± 0")
    decimals = max(0, 1 - math.floor(math.log10(found.std)))
    return f"{found.mean:.{decimals}f} ± {found.std:.{decimals}f}"


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


def chance(report: Report) -> float:
    """How often a peak that lies anywhere would lie in the patch: the patch's share of the area."""
    height, width = report.images["image_size"]
    return PATCH**2 / (height * width)


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
    shown = COLUMNS[2:5]  # without speed: one side's run may have had the machine to itself, the other's not
    heads = [f"{column.title}: {side}" for column in shown for side in ("ours", "PyTorch")]
    lines = []
    for name, row in ROWS.items():
        ours, theirs = both(report, name, protocol)
        if ours:
            pairs = [column.show(spread(map(column.value, runs))) for column in shown for runs in (ours, theirs)]
            apart = deviations(distance(ours, theirs))
            lines.append([row.title, str(len(ours)), *pairs[:2], apart, *pairs[2:]])
    return markdown(["network", "seeds", *heads[:2], "apart", *heads[2:]], lines)


def both(report: Report, name: str, protocol: Protocol) -> tuple[list[Outcome], list[Outcome]]:
    """Ours and PyTorch's runs of a row, of the seeds that both have."""
    sides = report.of(name, protocol), report.of(name, protocol, "pytorch")
    seeds = set.intersection(*({run.seed for run in runs} for runs in sides))
    ours, theirs = ([run for run in runs if run.seed in seeds] for runs in sides)
    return ours, theirs


def short_table(report: Report) -> str:
    """What matters most, for the README: patches of each image's own, ours and the PyTorch twin's."""
    heads = ["network", "seeds", "min test error", "PyTorch twin's", "test accuracy", "pointing game: class activation"]
    heads.append("the map that points best")
    lines = []
    for name, row in ROWS.items():
        ours, theirs = report.of(name, "per_image"), report.of(name, "per_image", "pytorch")
        if ours:
            figures = [column.show(spread(map(column.value, ours))) for column in COLUMNS[2:5]]
            twins = error(spread(run.min_test_error for run in theirs)) or "not trained yet"
            kind, pointing = best_map(ours)
            lines.append([row.title, str(len(ours)), figures[0], twins, *figures[1:], f"{share(pointing)}, {kind}"])
    return markdown(heads, lines)


def best_map(runs: Sequence[Outcome]) -> tuple[str, Spread | None]:
    """The map that points best on average, in words, and how often it does."""
    kinds = dict.fromkeys(kind for run in runs for kind in run.maps)
    found = {kind: points for kind in kinds if (points := spread(run.pointing(kind) for run in runs))}
    if not found:
        return "none", None
    kind = max(found, key=lambda kind: found[kind].mean)
    return called(kind), found[kind]


def called(kind: str) -> str:
    """A map's name in a sentence.

    Example:
        >>> called("attended_mean"), called("attn1.attention.weights")
        ('mean of the attended map', '`attn1.attention.weights`')
    """
    return {"attended_mean": "mean of the attended map", "class_activation": "class activation"}.get(kind, f"`{kind}`")


def distance(ours: Sequence[Outcome], theirs: Sequence[Outcome], value: Value = COLUMNS[2].value) -> float | None:
    """How far two means are apart, ours minus theirs, in seed standard deviations; None where there are none to tell.

    The standard deviation is that over the seeds of either side, the root of the mean of both variances.
    """
    a, b = spread(map(value, ours)), spread(map(value, theirs))
    if a is None or b is None or a.std is None or b.std is None:
        return None
    deviation = math.sqrt((a.std**2 + b.std**2) / 2)
    apart = a.mean - b.mean
    return apart / deviation if deviation else (math.copysign(math.inf, apart) if apart else 0.0)


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
            lines.append([row.title, called(kind), *scores])
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
