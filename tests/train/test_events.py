"""Event files hold what the logs hold, each step once, whatever happened to the run."""

import io
import itertools
import json
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from flax_attn.testing import relative_error, tolerance
from train.__main__ import main
from train.config import Config
from train.runs import RunFolder
from train.step import learning_rate

OPTIONS = ["--batch-size", "7", "--epochs", "2", "--network", "cnn", "--learning-rate", "0.01"]  # steps: 4 + 4


def every_event(folder):
    """All events, in the order of the files."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((folder / "tensorboard").iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):  # length, its checksum, the event, its checksum
            (length,) = struct.unpack_from("<Q", content, at)
            yield Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length


def read_events(folder):
    """All values by tag, as pairs of step and value."""
    found = {}
    for event in every_event(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value))
    return found


def check_start(folder):
    """A TensorBoard that has read events past the place where the run goes on forgets them."""
    from tensorboardX.proto.event_pb2 import SessionLog

    version, start = itertools.islice(every_event(folder), 2)
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (1, SessionLog.START)


def leave_half_an_event(folder):
    """What a kill leaves: events of steps that come again, the last one cut off."""
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event

    writer = EventsWriter(str(folder / "tensorboard" / "events"), ".later")
    for step in (5, 6, 7):
        writer.write_event(Event(step=step, summary=summary.scalar("step/train_error", 0.5)))
    writer.close()
    (path,) = (folder / "tensorboard").glob("*.later")
    path.write_bytes(path.read_bytes()[:-3])


def scalars(events, tag):
    return [(step, value.simple_value) for step, value in events[tag]]


def check(folder):
    """Holds the event files against the logs."""
    check_start(folder)
    events = read_events(folder)
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rate = learning_rate(Config(learning_rate=0.01), 8)
    f32 = np.float32
    assert scalars(events, "step/train_error") == [(line["step"], f32(line["error"])) for line in steps]
    assert [step for step, _ in scalars(events, "step/learning_rate")] == list(range(1, 9))
    rates = np.array([value for _, value in scalars(events, "step/learning_rate")])
    assert relative_error(rates, np.array([rate(step) for step in range(8)])) <= tolerance("output", "float32")
    for name in ("train_error", "train_accuracy", "test_error", "test_accuracy", "images_per_second"):
        expected = [(4 * line["epoch"], f32(line[name])) for line in epochs]
        assert scalars(events, f"epoch/{name}") == expected
    for name in ("curves", "attention"):
        ((step, value),) = events[name]
        shown = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
        assert step == 8
        np.testing.assert_array_equal(shown, np.asarray(Image.open(folder / f"{name}.png").convert("RGB")))


@pytest.mark.parametrize("from_the_beginning", [True, False])
def test_a_run_that_was_killed_has_each_step_once(from_the_beginning, archive, tmp_path, monkeypatch):
    add_step = RunFolder.add_step

    def add_and_fall(folder, at, error):
        add_step(folder, at, error)
        if at == 6:
            raise OSError("the machine fell")

    monkeypatch.setattr(RunFolder, "add_step", add_and_fall)
    more = ["--tensorboard"] if from_the_beginning else []
    run = tmp_path / "run"
    assert main([*OPTIONS, *more, "--data", f"npz:{archive}", "--run-dir", str(run)]) == 1
    monkeypatch.undo()
    assert (run / "tensorboard").exists() == from_the_beginning
    if from_the_beginning:
        leave_half_an_event(run)
    assert main(["--resume", str(run), "--tensorboard"]) == 0
    check(run)


def test_a_full_disk_ends_the_run_with_one_line(archive, tmp_path, monkeypatch, capsys):
    from tensorboardX import event_file_writer

    written, write = [], event_file_writer.EventsWriter.write_event

    def write_or_fail(writer, event):
        if len(written) == 5:
            raise OSError(28, "No space left on device")
        written.append(event)
        write(writer, event)

    monkeypatch.setattr(event_file_writer.EventsWriter, "write_event", write_or_fail)
    run = tmp_path / "run"
    assert main([*OPTIONS, "--tensorboard", "--data", f"npz:{archive}", "--run-dir", str(run)]) == 1
    assert capsys.readouterr().err.startswith("error: [Errno 28] No space left on device; of the checkpoints ")
    assert len((run / "steps.jsonl").read_text().splitlines()) == 2  # at once


def test_without_the_library_nothing_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert main(["--tensorboard", "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        "error: --tensorboard needs tensorboardX, got none; install it with: pip install -e '.[tensorboard]'\n"
    )
    assert not (tmp_path / "run").exists()
