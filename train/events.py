"""Event files, which TensorBoard shows, in the folder ``tensorboard`` of the run's, where they are asked for."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from .config import Config
from .loop import Run
from .metrics import EpochMetrics
from .runs import RunFolder
from .step import learning_rate

FOLDER = "tensorboard"
SECONDS = 10  # after which at the latest what was added is on its way to the disk
PICTURES = ("curves.png", "attention.png")


class NoEvents:
    """In place of `Events` where nobody asked for them."""

    def step(self, step: int, error: float) -> None:
        """A training step, counted from 1, is done."""

    def epoch(self, metrics: EpochMetrics) -> None:
        """An epoch is done."""

    def pictures(self) -> None:
        """The run is done."""

    def close(self) -> None:
        """No more comes."""


class Events(NoEvents):
    """Writes event files, all of them over the number of training steps.

    What the logs of the folder hold is written first, in place of the event files that are there: a run that goes on
    has each step once, whatever was written before it was killed, and one that did not ask for events at first has all.

    Args:
        run: at its beginning, or where it goes on.
        folder: its own, with logs that end there.

    Raises:
        OSError: the disk is full, say; so do all methods.
    """

    def __init__(self, run: Run, folder: RunFolder) -> None:
        self._path, self._steps = folder.path, run.steps
        self._rates = _rates(run.config, run.config.epochs * run.steps)
        (self._path / FOLDER).mkdir(exist_ok=True)
        for old in (self._path / FOLDER).glob("events.out.tfevents.*"):
            old.unlink()
        self._library = import_library()
        self._flushed = time.monotonic()
        # Not through SummaryWriter: its thread ends at the first error, and whoever writes then waits for it for good.
        self._writer = self._library.Writer(str(self._path / FOLDER / "events"))
        # Tells a TensorBoard that is looking to forget what it has read.
        self._write(1, session_log=self._library.SessionLog(status=self._library.SessionLog.START))
        for step, error in enumerate(folder.step_errors(), 1):
            self.step(step, error)
        for metrics in folder.history():
            self.epoch(metrics)

    def step(self, step: int, error: float) -> None:
        """A training step, counted from 1, is done."""
        self._scalar("step/train_error", error, step)
        self._scalar("step/learning_rate", self._rates[step - 1], step)

    def epoch(self, metrics: EpochMetrics) -> None:
        """An epoch is done."""
        for name, value in vars(metrics).items():
            if name != "epoch":
                self._scalar(f"epoch/{name}", value, metrics.epoch * self._steps)

    def pictures(self) -> None:
        """The run is done, and its pictures are in its folder."""
        for name in PICTURES:
            with Image.open(self._path / name) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            shown = self._library.summary.image(Path(name).stem, pixels, dataformats="HWC")
            self._write(len(self._rates), summary=shown)

    def close(self) -> None:
        """No more comes."""
        self._writer.close()

    def _scalar(self, tag: str, value: float, step: int) -> None:
        self._write(step, summary=self._library.summary.scalar(tag, value))

    def _write(self, step: int, **content: Any) -> None:
        self._writer.write_event(self._library.Event(wall_time=time.time(), step=step, **content))
        if time.monotonic() - self._flushed > SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()


def open_events(run: Run, folder: RunFolder) -> NoEvents:
    """`Events` where the run's options ask for them."""
    return Events(run, folder) if run.config.tensorboard else NoEvents()


class Library(NamedTuple):
    """What of tensorboardX is used."""

    Writer: Any
    Event: Any
    SessionLog: Any
    summary: Any


def import_library() -> Library:
    """What writes event files.

    Raises:
        ValueError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
    except ImportError as error:
        raise ValueError(
            "--tensorboard needs tensorboardX, got none; install it with: pip install -e '.[tensorboard]'"
        ) from error
    return Library(EventsWriter, Event, SessionLog, summary)


def _rates(config: Config, steps: int) -> np.ndarray:
    rate = learning_rate(config, steps)
    return np.asarray(jax.vmap(lambda step: jnp.asarray(rate(step)))(jnp.arange(steps)))
