"""Event files hold what the logs hold, each step once, whatever happened to the run."""

import itertools
import json
import struct
import sys

import numpy as np
import pytest

from train.__main__ import main
from train.events import Events
from train.runs import RunFolder

from .test_resume import stop_at

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


def check(folder):
    """Compares the event files with the logs."""
    from tensorboardX.proto.event_pb2 import SessionLog

    version, start = itertools.islice(every_event(folder), 2)
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (1, SessionLog.START)  # TensorBoard forgets what it has read
    events = {}
    for event in every_event(folder):
        for value in event.summary.value:
            events.setdefault(value.tag, []).append((event.step, value))
    scalars = {tag: [(step, value.simple_value) for step, value in values] for tag, values in events.items()}
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    f32 = np.float32
    assert scalars["step/train_error"] == [(line["step"], f32(line["error"])) for line in steps]
    for name in ("train_error", "train_accuracy", "test_error", "test_accuracy", "images_per_second"):
        assert scalars[f"epoch/{name}"] == [(4 * line["epoch"], f32(line[name])) for line in epochs]


@pytest.mark.parametrize("from_the_beginning", [True, False])
def test_a_resumed_run_has_each_step_once(from_the_beginning, archive, tmp_path):
    run, more = tmp_path / "run", ["--tensorboard"] if from_the_beginning else []
    stop_at(6, [*OPTIONS, *more, "--data", f"npz:{archive}", "--run-dir", str(run)])
    assert (run / "tensorboard").exists() == from_the_beginning
    if from_the_beginning:  # what a kill leaves: events of steps that come again, the last one cut off
        (path,) = (run / "tensorboard").iterdir()
        path.with_name(f"{path.name}.later").write_bytes(path.read_bytes()[:-3])
    assert main(["--resume", str(run), "--tensorboard"]) == 0
    check(run)


def fill(events):
    for step in range(1, 100_000):
        events.add_step(step, 0.5)


def test_a_full_disk_is_an_error_at_once(tmp_path):
    resource = pytest.importorskip("resource")
    events = Events(RunFolder(tmp_path), 4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            fill(events)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        events.close()


def test_without_the_library_nothing_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert main(["--tensorboard", "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        "error: --tensorboard needs tensorboardX, got none; install it with: pip install -e '.[tensorboard]'\n"
    )
    assert not (tmp_path / "run").exists()
