"""What a run shows while it goes on, and at its end."""

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .loop import Run
from .metrics import EpochMetrics, Tally
from .runs import RunFolder
from .text import printable


class ProgressBar:
    """A bar over all batches of a run with the time left and the current errors, and a line per epoch.

    Where the output is no terminal there are the lines alone.
    """

    def __init__(self, run: Run, console: Console) -> None:
        self._epochs, self._unit = run.config.epochs, run.source.unit
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[scores]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        done = run.place.step + run.place.epochs * (run.batches - run.steps)
        self._task = self._bar.add_task("", total=self._epochs * run.batches, completed=done, scores="")
        self._name(run.place.epochs)

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def batch(self, split: str, tally: Tally) -> None:
        """One more batch is done."""
        self._bar.update(self._task, advance=1, scores=f"{split} error {tally.error:.4f} accuracy {tally.accuracy:.3f}")

    def note(self, text: str) -> None:
        """A line between those of the epochs."""
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def epoch(self, metrics: EpochMetrics) -> None:
        """One more epoch is done."""
        self._name(metrics.epoch)
        self._console.print(
            f"epoch {metrics.epoch:{len(str(self._epochs))}}/{self._epochs}"
            f"  train error {metrics.train_error:<9.4g} accuracy {metrics.train_accuracy:.3f}"
            f"  test error {metrics.test_error:<9.4g} accuracy {metrics.test_accuracy:.3f}"
            f"  {metrics.images_per_second:.0f} {self._unit}/s",
            soft_wrap=True,
            highlight=False,
        )

    def _name(self, epoch: int) -> None:
        self._bar.update(self._task, description=f"epoch {min(epoch + 1, self._epochs)}/{self._epochs}")


@contextlib.contextmanager
def looking(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Gives what `train.data.open_source` may tell how far it is, and shows that on a terminal while it lasts."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("left"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("looking through the files", visible=False)  # until there are some
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True, refresh=True)


def heading(run: Run) -> str:
    """What is about to happen, in a line."""
    source, config = run.source, run.config
    return (
        f"{config.title}, {run.parameters:,} parameters; {len(source.train)} training and {len(source.test)} test "
        f"{source.described}; batches of {config.batch_size} on {run.devices} x {jax.devices()[0].device_kind}"
    )


def summary(history: Sequence[EpochMetrics], folder: RunFolder, seconds: float, unit: str = "images") -> Table:
    """The table at the end: the smallest errors over the epochs, which the tutorial reports, and the last accuracy."""
    table = Table(show_header=False)
    rows = {
        "min train error": f"{min(m.train_error for m in history):.3g}",
        "min test error": f"{min(m.test_error for m in history):.3g}",
        "test accuracy": f"{history[-1].test_accuracy:.3f}",
        f"{unit}/s": f"{statistics.median(m.images_per_second for m in history):.0f}",
        "time": str(timedelta(seconds=int(seconds))),
        "run folder": printable(folder.path),
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))  # not a string, whose brackets would be taken for styles
    return table
