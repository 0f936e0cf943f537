"""The tables of the parity report, for the terminal, Markdown and HTML alike."""

import math
import os
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from flax_attn.testing import Row
from flax_attn.testing.tolerances import QUANTITIES, RATIOS, TRAINED

from .run import CaseResult, ParityRun, geometric_mean


class Cell(NamedTuple):
    """A cell: its text, whether it is within its tolerance, and what a tooltip adds."""

    text: str
    ok: bool = True
    title: str = ""


class Table(NamedTuple):
    """A head and lines as long as it."""

    head: list[str]
    lines: list[list[Cell]]


def quantities(run: ParityRun, dtype: str) -> list[str]:
    """The quantities compared in a dtype: training runs are in float64 only."""
    return [*QUANTITIES, *(TRAINED if dtype == "float64" and run.options.steps else ())]


def case_table(run: ParityRun, dtype: str) -> Table:
    """One line per case: the largest error of each quantity; in narrow dtypes ours / PyTorch's, and their ratio."""
    columns = quantities(run, dtype)
    lines = []
    for case in run.cases:
        line = [Cell(case.name, case.ok), *(_quantity(case, dtype, quantity) for quantity in columns)]
        if dtype in RATIOS:
            value = case.ratios.get(dtype, math.nan)
            line.append(Cell(ratio(value), value <= RATIOS[dtype][1]))
        lines.append(line)
    return Table(["case", *columns, *(["ratio"] if dtype in RATIOS else [])], lines)


def class_table(run: ParityRun) -> Table:
    """One line per class: its largest errors over all its cases, quantities and modes."""
    head = ["class", "float64", f"after {run.options.steps} steps"]
    for dtype in RATIOS:
        head += [f"{dtype}: ours / PyTorch's", "ratio"]
    lines = []
    for name in dict.fromkeys(case.class_name for case in run.cases):
        cases = [case for case in run.cases if case.class_name == name]
        line = [f"`{name}`", _largest(cases, "float64", QUANTITIES), _largest(cases, "float64", TRAINED)]
        for dtype in RATIOS:
            theirs = max(case.torch_worst(dtype) for case in cases)
            mean = geometric_mean([case.ratios[dtype] for case in cases if dtype in case.ratios])
            line += [f"{_largest(cases, dtype, QUANTITIES)} / {theirs:.0e}", ratio(mean)]
        lines.append(line)
    for name, over in (("geometric mean", run.mean_ratio), ("median", run.median_ratio)):
        means = [f"**{ratio(over(dtype))}**" for dtype in RATIOS]
        lines.append([f"**{name} over cases**", "", "", "", means[0], "", means[1]])
    return Table(head, [[Cell(text) for text in line] for line in lines])


def ratio(value: float) -> str:
    """A ratio of errors, a tiny one as a power of ten.

    Example:
        >>> ratio(0.843), ratio(0.00011)
        ('0.84', '1e-04')
    """
    return f"{value:.0e}" if 0 < value < 0.01 else f"{value:.2f}"


def describe(run: ParityRun) -> str:
    """What ran where, in a sentence."""
    versions = ", ".join(f"{name} {number}" for name, number in run.versions.items())
    return (
        f"{len(run.cases)} cases, Flax on {run.platform} ({run.hardware}), matrix products at "
        f'"{run.options.precision}" precision, PyTorch on the CPU; {versions}.'
    )


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]], rule: str = "---:") -> str:
    """A Markdown table, numbers aligned to the right (``rule``).

    Example:
        >>> print(markdown(["class", "error"], [["CBAM", "1e-16"]]))
        | class | error |
        |---|---:|
        | CBAM | 1e-16 |
    """
    rules = "|---|" + f"{rule}|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", rules, *("| " + " | ".join(line) + " |" for line in lines)])


def in_markdown(table: Table) -> str:
    """A table as Markdown."""
    return markdown(table.head, [[cell.text for cell in line] for line in table.lines])


def run_markdown(run: ParityRun) -> str:
    """The whole run: ``--markdown``."""
    parts = [f"# Parity on {run.platform}, {run.options.precision} precision", describe(run)]
    if problems := run.problems():
        parts += ["## Failed", "\n".join(f"- {line}" for line in problems)]
    for dtype in run.options.dtypes:
        parts += [f"## {dtype}", in_markdown(case_table(run, dtype))]
    return "\n\n".join(parts) + "\n"


def in_html(table: Table) -> str:
    """A table as HTML."""
    head = "".join(f"<th>{name}</th>" for name in table.head)
    lines = "".join(f"<tr>{''.join(map(_html_cell, line))}</tr>\n" for line in table.lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def print_run(run: ParityRun) -> None:
    """Prints a table per dtype, the failures, and a summary."""
    console = Console(width=None if os.isatty(1) else 140)
    for dtype in run.options.dtypes:
        console.print(_in_terminal(run, dtype))
    problems = run.problems()
    findings = [f"{case.name}: {case.finding}" for case in run.cases if not case.ok and case.finding]
    for line in findings + problems:
        console.print(Text(line, style="red"), soft_wrap=True)
    for dtype in RATIOS:
        cases = [case for case in run.cases if dtype in case.ratios]
        if cases:
            worst = max(cases, key=lambda case: case.ratios[dtype])
            console.print(
                f"{dtype}: our error is {run.mean_ratio(dtype):.2f} times PyTorch's own (geometric mean over cases), "
                f"at most {worst.ratios[dtype]:.2f} ({worst.name})"
            )
    comparisons = sum(len(case.rows) for case in run.cases)
    console.print(f"{len(run.cases)} cases, {comparisons} comparisons, {len(problems)} problems")
    console.print(f"{run.seconds:.0f} s on {run.hardware}")


def _in_terminal(run: ParityRun, dtype: str) -> RichTable:
    caption = f"ours / PyTorch's own, each against PyTorch's float64 from the same {dtype} weights and inputs"
    if dtype == "float64":
        caption = "largest relative error over all tensors, in train and eval mode, against PyTorch's float64"
    shown = RichTable(title=f"flax_attn against PyTorch, {dtype} on {run.platform}", caption=caption)
    head, lines = case_table(run, dtype)
    for name in head:
        steps = f"\n{run.options.steps} steps" if name in TRAINED else ""
        shown.add_column(name.replace(" ", "\n") + steps, justify="left" if name == "case" else "right")
    for line in lines:
        shown.add_row(*(Text(cell.text, style="" if cell.ok else "red") for cell in line))
    return shown


def _html_cell(cell: Cell) -> str:
    failed = "" if cell.ok else ' class="failed"'
    title = f' title="{escape(cell.title)}"' if cell.title else ""
    return f"<td{failed}{title}>{escape(cell.text)}</td>"


def _quantity(case: CaseResult, dtype: str, quantity: str) -> Cell:
    row = case.worst(dtype, [quantity])
    if row is None:
        return Cell("-")
    text = f"{row.error:.0e}"
    if dtype != "float64":
        text += f" / {case.torch_worst(dtype, [quantity]):.0e}"
    failed = any(not row.ok for row in case.rows if (row.quantity, row.dtype) == (quantity, dtype))
    return Cell(text, not failed, f"{row.path}, {row.mode}")


def _largest(cases: Sequence[CaseResult], dtype: str, wanted: Sequence[str]) -> str:
    rows: list[Row] = [row for case in cases if (row := case.worst(dtype, wanted)) is not None]
    worst = max(rows, key=lambda row: (math.isnan(row.error), row.error), default=None)
    return "-" if worst is None else f"{worst.error:.0e}"
