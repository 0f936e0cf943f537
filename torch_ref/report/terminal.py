"""The report in the terminal."""

import math
import os

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flax_attn.testing.tolerances import QUANTITIES, RATIOS, TRAINED

from .run import CaseResult, ParityRun

CAPTIONS = {
    "float64": "largest relative error over all tensors, in train and eval mode, against PyTorch's float64",
    "float32": "ours / PyTorch's own, each against PyTorch's float64 from the same float32 weights and inputs",
    "bfloat16": "ours / PyTorch's own, each against PyTorch's float64 from the same bfloat16 weights and inputs",
}


def print_run(run: ParityRun) -> None:
    """Prints a table per dtype, what failed, and the sum of it."""
    console = Console(width=None if os.isatty(1) else 140)
    for dtype in run.options.dtypes:
        console.print(parity_table(run, dtype))
    for case in run.cases:
        if not case.ok and case.finding:
            console.print(Text(f"{case.name}: {case.finding}", style="red"))
    problems = run.problems()
    for line in problems:
        console.print(Text(line, style="red"), soft_wrap=True)
    for dtype in RATIOS:
        if any(dtype in case.ratios for case in run.cases):
            worst = max((case for case in run.cases if dtype in case.ratios), key=lambda case: case.ratios[dtype])
            console.print(
                f"{dtype}: our error is {run.mean_ratio(dtype):.2f} times PyTorch's own (geometric mean over cases), "
                f"at most {worst.ratios[dtype]:.2f} ({worst.name})"
            )
    comparisons = sum(len(case.rows) for case in run.cases)
    console.print(f"{len(run.cases)} cases, {comparisons} comparisons, {len(problems)} problems")
    console.print(f"{run.seconds:.0f} s on {run.hardware}")


def parity_table(run: ParityRun, dtype: str) -> Table:
    """One row per case, one column per quantity; red is above its tolerance."""
    table = Table(title=f"flax_attn against PyTorch, {dtype} on {run.platform}", caption=CAPTIONS[dtype])
    table.add_column("case")
    quantities = [*QUANTITIES, *(TRAINED if dtype == "float64" and run.options.steps else ())]
    for quantity in quantities:
        steps = f"\n{run.options.steps} steps" if quantity in TRAINED else ""
        table.add_column(quantity.replace(" ", "\n") + steps, justify="right")
    if dtype in RATIOS:
        table.add_column("ratio", justify="right")
    for case in run.cases:
        cells = [_cell(case, quantity, dtype) for quantity in quantities]
        if dtype in RATIOS:
            ratio = case.ratios.get(dtype, math.nan)
            cells.append(Text(f"{ratio:.2f}", style="" if ratio <= RATIOS[dtype][1] else "red"))
        table.add_row(Text(case.name, style="" if case.ok else "red"), *cells)
    return table


def _cell(case: CaseResult, quantity: str, dtype: str) -> Text:
    row = case.worst(dtype, [quantity])
    if row is None:
        return Text("-")
    shown = f"{row.error:.0e}"
    if dtype != "float64":
        shown = f"{shown} / {case.torch_worst(dtype, [quantity]):.0e}"
    failed = any(not row.ok for row in case.rows if (row.quantity, row.dtype) == (quantity, dtype))
    return Text(shown, style="red" if failed else "")
