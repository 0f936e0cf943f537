"""What a comparison shows on the terminal."""

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .options import Options
from .problem import Trajectory
from .result import Result
from .verdict import FIRST


def heading(options: Options) -> str:
    """What is about to happen, in a line.

    Example:
        >>> heading(Options(steps=20, runs=1))
        'cbam in float32: 20 steps of batches of 32, ours, PyTorch, and PyTorch in 1 other order of sums'
    """
    others = f", and PyTorch in {options.runs} other order{'s' * (options.runs != 1)} of sums" if options.runs else ""
    runs = f"ours, PyTorch{others}" if options.runs else "ours and PyTorch"
    return f"{options.network} in {options.dtype}: {options.steps} steps of batches of {options.batch_size}, {runs}"


class Bar:
    """A progress bar over the steps of all runs; where the output is no terminal a line per run that is done."""

    def __init__(self, runs: int, each: int, console: Console) -> None:
        self._console, self._done, self._each = console, 0, each
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("compiling", total=runs * each)

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, run: str) -> None:
        """One more step of a run is done."""
        self._bar.update(self._task, description=run, advance=1)
        self._done += 1
        if self._done % self._each == 0 and not self._console.is_terminal:
            self._console.print(f"{run}: {self._each} steps done", soft_wrap=True, highlight=False)


def table(result: Result) -> Table:
    """The figures."""
    verdict, options = result.verdict, result.options
    shown = Table(title=f"{options.network} in {options.dtype}: ours against PyTorch", show_header=False)
    rows = {
        f"losses, first {min(FIRST, options.steps)} steps": f"{np.max(verdict.difference[:FIRST]):.2g}",
        f"losses, all {options.steps} steps": f"{np.max(verdict.difference):.2g}",
        "parameters after them": largest(result.parameters),
        "those of zero gradient": largest(result.noise),
        "buffers": largest(result.buffers),
        "last loss": f"ours {result.ours.losses[-1]:.9g}, PyTorch {result.reference.losses[-1]:.9g}",
        "time per step": f"ours {1e3 * result.ours.step_time:.3g} ms, "
        f"PyTorch {1e3 * result.reference.step_time:.3g} ms (medians, without compiling)",
        "ours on": result.where["ours"],
        "PyTorch on": result.where["PyTorch"],
        "versions": result.where["versions"],
    }
    for name, value in rows.items():
        if value:
            shown.add_row(name, value)
    return shown


def largest(errors: dict[str, float]) -> str:
    """The largest difference and whose it is; nothing where there are none.

    Example:
        >>> largest({"final.weight": 1e-9, "final.bias": 2e-9})
        '2e-09 (final.bias)'
    """
    if not errors:
        return ""
    name = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    return f"{errors[name]:.2g} ({name})"


def findings(result: Result) -> list[str]:
    """The verdict, a line for each thing that is asked for."""
    verdict, steps = result.verdict, result.options.steps
    judged = steps if verdict.wanted is None else min(FIRST, steps)
    lines = [
        *(_not_finite("ours", result.ours) + _not_finite("PyTorch", result.reference)),
        f"{_name(judged, steps)}: the losses differ by at most {verdict.worst:.2g}, allowed are "
        f"{verdict.tolerance:g}: {_word(verdict.agrees)}",
    ]
    if verdict.share is None:
        return lines
    later = f"of the {steps - FIRST} steps after the first {FIRST} {verdict.share:.1%} lie within the band"
    if verdict.yardsticks:
        later += (
            f" (PyTorch's own runs within that of the others: {min(verdict.yardsticks):.1%} to "
            f"{max(verdict.yardsticks):.1%})"
        )
    if verdict.wanted is not None:
        later += f", {verdict.wanted:.1%} are asked for: {_word(verdict.stays_within)}"
    return [*lines, later]


def _not_finite(name: str, run: Trajectory) -> list[str]:
    bad = np.flatnonzero(~np.isfinite(run.losses))
    return [f"the loss of {name} is {run.losses[bad[0]]} at step {bad[0] + 1}"] if len(bad) else []


def _name(judged: int, steps: int) -> str:
    return f"all {steps} steps" if judged == steps else f"the first {judged} steps"


def _word(well: bool) -> str:
    return "holds" if well else "does not hold"
