"""The report as Markdown: the whole table, and the short one by class that the README shows."""

import math
from collections.abc import Iterable, Sequence

from flax_attn.testing import Row
from flax_attn.testing.tolerances import QUANTITIES, RATIOS, TRAINED

from .run import CaseResult, ParityRun


def describe(run: ParityRun) -> str:
    """A sentence on what ran where."""
    versions = ", ".join(f"{name} {number}" for name, number in run.versions.items())
    return (
        f"{len(run.cases)} cases in {run.seconds:.0f} s, Flax on {run.platform} ({run.hardware}), matrix products at "
        f'"{run.options.precision}" precision, PyTorch on the CPU; {versions}.'
    )


def class_table(run: ParityRun) -> str:
    """One line per class: its largest errors over all its cases, quantities and modes."""
    head = ["class", "float64", f"after {run.options.steps} steps"]
    for dtype in RATIOS:
        head += [f"{dtype}: ours / PyTorch's", "ratio"]
    lines = []
    for name in dict.fromkeys(case.class_name for case in run.cases):
        cases = [case for case in run.cases if case.class_name == name]
        cells = [f"`{name}`", _error(cases, "float64", QUANTITIES), _error(cases, "float64", TRAINED)]
        for dtype in RATIOS:
            theirs = max(case.torch_worst(dtype) for case in cases)
            cells += [f"{_error(cases, dtype, QUANTITIES)} / {theirs:.0e}", ratio(_mean(cases, dtype))]
        lines.append(cells)
    for name, over in (("geometric mean", run.mean_ratio), ("median", run.median_ratio)):
        means = [f"**{ratio(over(dtype))}**" for dtype in RATIOS]
        lines.append([f"**{name} over cases**", "", "", "", means[0], "", means[1]])
    return table(head, lines)


def case_table(run: ParityRun, dtype: str) -> str:
    """One line per case: the largest error of each quantity."""
    quantities = [*QUANTITIES, *(TRAINED if dtype == "float64" and run.options.steps else ())]
    head = ["case", *quantities, *(["ratio"] if dtype in RATIOS else [])]
    lines = []
    for case in run.cases:
        cells = [case.name, *(_quantity(case, dtype, quantity) for quantity in quantities)]
        lines.append([*cells, *([ratio(case.ratios[dtype])] if dtype in RATIOS else [])])
    return table(head, lines)


def ratio(value: float) -> str:
    """A ratio of errors, a tiny one by its power of ten.

    Example:
        >>> ratio(0.843), ratio(0.00011)
        ('0.84', '1e-04')
    """
    return f"{value:.0e}" if 0 < value < 0.01 else f"{value:.2f}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right.

    Example:
        >>> print(table(["class", "error"], [["CBAM", "1e-16"]]))
        | class | error |
        |---|---:|
        | CBAM | 1e-16 |
    """
    rule = "|---" + "|---:" * (len(head) - 1) + "|"
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)])


def run_page(run: ParityRun) -> str:
    """The whole run: ``--markdown``."""
    parts = [f"# Parity on {run.platform}, {run.options.precision} precision", describe(run)]
    problems = run.problems()
    if problems:
        parts += ["## Failed", "\n".join(f"- {line}" for line in problems)]
    for dtype in run.options.dtypes:
        parts += [f"## {dtype}", case_table(run, dtype)]
    return "\n\n".join(parts) + "\n"


def _worst(cases: Sequence[CaseResult], dtype: str, quantities: Sequence[str]) -> Row | None:
    rows = [row for case in cases if (row := case.worst(dtype, quantities)) is not None]
    return max(rows, key=lambda row: (math.isnan(row.error), row.error), default=None)


def _error(cases: Sequence[CaseResult], dtype: str, quantities: Sequence[str]) -> str:
    row = _worst(cases, dtype, quantities)
    return "-" if row is None else f"{row.error:.0e}"


def _quantity(case: CaseResult, dtype: str, quantity: str) -> str:
    row = case.worst(dtype, [quantity])
    if row is None:
        return "-"
    return f"{row.error:.0e}" + ("" if dtype == "float64" else f" / {case.torch_worst(dtype, [quantity]):.0e}")


def _mean(cases: Sequence[CaseResult], dtype: str) -> float:
    ratios = [case.ratios[dtype] for case in cases if dtype in case.ratios]
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan
