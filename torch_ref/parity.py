"""The parity table: per case the largest relative error of each quantity."""

import os
from collections.abc import Iterable

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from flax_attn.testing import Report
from flax_attn.testing.tolerances import QUANTITIES

from .cases import Case
from .pairs import make_pair

CAPTIONS = {
    "float64": "largest relative error over all tensors, in train and eval mode, against PyTorch's float64",
    "float32": "the same, in float32: ours / PyTorch's own, each against PyTorch's float64",
}


def print_parity(cases: Iterable[Case]) -> bool:
    """Compares the cases, prints the table and whatever failed; returns whether all are equal."""
    console = Console(width=None if os.isatty(1) else 120)
    cases = list(cases)
    reports = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("comparing", total=len(cases))
        for case in cases:
            progress.update(task, description=case.name)
            reports.append(make_pair(case).compare())
            progress.advance(task)
    for dtype, caption in CAPTIONS.items():
        console.print(parity_table(reports, dtype, caption))
    for report in reports:
        if not report.ok:
            console.print(Text(str(report), style="red"))
    failed = sum(not report.ok for report in reports)
    comparisons = sum(len(report.rows) for report in reports)
    console.print(f"{len(reports)} cases, {comparisons} comparisons, {failed} cases failed")
    return failed == 0


def parity_table(reports: Iterable[Report], dtype: str, caption: str) -> Table:
    """One row per report, one column per quantity; red is above its tolerance."""
    table = Table(title=f"flax_attn against PyTorch, {dtype}", caption=caption)
    table.add_column("case")
    for quantity in QUANTITIES:
        table.add_column(quantity.replace(" ", "\n"), justify="right")
    for report in reports:
        cells = [_cell(report, quantity, dtype) for quantity in QUANTITIES]
        table.add_row(Text(report.name, style="" if report.ok else "red"), *cells)
    return table


def _cell(report: Report, quantity: str, dtype: str) -> Text:
    row = report.worst(quantity, dtype)
    if row is None:
        return Text("-")
    shown = f"{row.error:.0e}"
    if dtype == "float32":
        theirs = max(row.torch_error for row in report.rows if (row.quantity, row.dtype) == (quantity, dtype))
        shown = f"{shown} / {theirs:.0e}"
    failed = any(row.quantity == quantity and row.dtype == dtype for row in report.failures)
    return Text(shown, style="red" if failed else "")
