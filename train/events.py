"""Event files for TensorBoard, in the folder ``tensorboard`` of the run's; needs tensorboardX, which is optional."""

import time
from typing import Any

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from .runs import EpochMetrics, RunFolder


class Events:
    """Writes event files, over the number of training steps; all methods raise ``OSError`` on a full disk.

    It begins with what the folder's logs hold, in place of older event files: a resumed run has each step once, also if
    it was killed or had no event files before. ``steps`` are per epoch.
    """

    def __init__(self, folder: RunFolder, steps: int) -> None:
        self._steps = steps
        files = folder.path / "tensorboard"
        files.mkdir(exist_ok=True)
        for old in files.glob("events.out.tfevents.*"):
            old.unlink()
        # Not SummaryWriter: its thread ends at the first error, and then the next writes block for good.
        self._writer = EventsWriter(str(files / "events"))
        # Makes a TensorBoard that is running forget what it has read.
        self._write(1, session_log=SessionLog(status=SessionLog.START))
        for step, error in enumerate(folder.step_errors(), 1):
            self.add_step(step, error)
        for metrics in folder.history():
            self.add_epoch(metrics)
        self.close = self._writer.close

    def add_step(self, step: int, error: float) -> None:
        """Adds a training step, counted from 1."""
        self._write(step, summary=summary.scalar("step/train_error", error))

    def add_epoch(self, metrics: EpochMetrics) -> None:
        for name, value in vars(metrics).items():
            if name != "epoch":
                self._write(metrics.epoch * self._steps, summary=summary.scalar(f"epoch/{name}", value))

    def _write(self, step: int, **content: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
        self._writer.flush()
