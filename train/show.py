"""What a run prints: a progress bar, lines between, and a table at the end."""

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .runs import EpochMetrics
from .text import printable


class Bar:
    """A progress bar with the time left; where the output is no terminal there are only the notes."""

    def __init__(self, total: int, console: Console, done: int = 0) -> None:
        self._console = console
        columns = BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn()
        description, scores = TextColumn("{task.description}"), TextColumn("{task.fields[scores]}")
        drawn = console.is_terminal
        self._bar = Progress(description, *columns, scores, console=console, transient=True, disable=not drawn)
        self._task = self._bar.add_task("", total=total, completed=done, scores="")

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # as in `say`
            self._bar.stop()

    def advance(self, description: str = "", count: int = 1, scores: str = "") -> None:
        """Counts what was done, and shows what is being done and how it goes."""
        self._bar.update(self._task, advance=count, description=description, scores=scores)

    def note(self, line: str) -> None:
        say(self._console, line)


def say(console: Console, what: RenderableType) -> None:
    """Prints a line as it is, or a table; a terminal that is gone or a full disk must not end a run."""
    with contextlib.suppress(OSError):
        console.print(what, soft_wrap=True, highlight=False, markup=False)


@contextlib.contextmanager
def looking(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar for `train.data.open_source`, which reports how many of how many files it has read."""
    with contextlib.ExitStack() as stack:
        bar: Bar | None = None
        seen = 0

        def progress(done: int, total: int) -> None:
            nonlocal bar, seen
            bar = bar or stack.enter_context(Bar(total, console))
            bar.advance("reading the files", done - seen)
            seen = done

        yield progress


def epoch_line(metrics: EpochMetrics, epochs: int, unit: str) -> str:
    epoch = f"epoch {metrics.epoch:{len(str(epochs))}}/{epochs}"
    train = f"train error {metrics.train_error:<9.4g} accuracy {metrics.train_accuracy:.3f}"
    test = f"test error {metrics.test_error:<9.4g} accuracy {metrics.test_accuracy:.3f}"
    return f"{epoch}  {train}  {test}  {metrics.images_per_second:.0f} {unit}/s"


def summary(history: Sequence[EpochMetrics], folder: Path, seconds: float, unit: str = "images") -> Table:
    """The table at the end, with the smallest errors over the epochs, which the tutorial reports."""
    rows = {
        "min train error": f"{min(m.train_error for m in history):.3g}",
        "min test error": f"{min(m.test_error for m in history):.3g}",
        "test accuracy": f"{history[-1].test_accuracy:.3f}",
        f"{unit}/s": f"{statistics.median(m.images_per_second for m in history):.0f}",
        "time": str(timedelta(seconds=int(seconds))),
        "run folder": printable(folder),
    }
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, Text(value))  # Text, as brackets in a string would be read as styles
    return table
