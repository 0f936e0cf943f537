"""What a run prints: a progress bar, and lines between."""

import contextlib

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .runs import EpochMetrics


class Bar(Progress):
    """A progress bar with the time left; where the output is no terminal there are only the notes."""

    def __init__(self, total: int, console: Console, done: int = 0) -> None:
        description, scores = TextColumn("{task.description}"), TextColumn("{task.fields[scores]}")
        columns = description, BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn(), scores
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.add_task("", total=total, completed=done, scores="")

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # as in `say`
            super().stop()

    def count(self, description: str = "", scores: str = "", done: int = 1) -> None:
        """Counts what was done, and shows what is being done and how it goes."""
        self.update(self.task_ids[0], advance=done, description=description, scores=scores)


def say(console: Console, what: RenderableType) -> None:
    """Prints a line as it is, or a table; a terminal that is gone or a full disk must not end a run."""
    with contextlib.suppress(OSError):
        console.print(what, soft_wrap=True, highlight=False, markup=False)


def epoch_line(metrics: EpochMetrics, epochs: int, unit: str) -> str:
    epoch = f"epoch {metrics.epoch:{len(str(epochs))}}/{epochs}"
    train = f"train error {metrics.train_error:<9.4g} accuracy {metrics.train_accuracy:.3f}"
    test = f"test error {metrics.test_error:<9.4g} accuracy {metrics.test_accuracy:.3f}"
    return f"{epoch}  {train}  {test}  {metrics.images_per_second:.0f} {unit}/s"
