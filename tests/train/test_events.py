"""Event files hold what the logs hold, each step once, whatever happened to the run."""

import io
import json
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from flax_attn.testing import relative_error, tolerance
from train.__main__ import main
from train.config import Config
from train.run_folder import RunFolder
from train.state import learning_rate

OPTIONS = ["--batch-size", "7", "--epochs", "2", "--network", "cnn", "--learning-rate", "0.01"]  # steps: 4 + 4


def read_events(folder):
    """All values by tag, as pairs of step and value, in the order of the files."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):  # length, its checksum, the event, its checksum
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
            at += 16 + length
    return found


def scalars(events, tag):
    return [(step, value.simple_value) for step, value in events[tag]]


def check(folder):
    """Holds the event files against the logs."""
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
    assert main(["--resume", str(run), "--tensorboard"]) == 0
    check(run)


def test_without_the_library_nothing_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert main(["--tensorboard", "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        "error: --tensorboard needs tensorboardX, got none; install it with: pip install -e '.[tensorboard]'\n"
    )
    assert not (tmp_path / "run").exists()
