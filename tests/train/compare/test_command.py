"""``python -m train compare`` from its arguments to its folder and its exit status."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from jax.errors import JaxRuntimeError
from PIL import Image

from flax_attn.testing import tolerance
from train.__main__ import main
from train.compare.options import Options

from ..conftest import small_images

STEPS = 13


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a.npz"
    np.savez(path, images=small_images(29, 20, 24))
    return path


def compare(archive, folder, *options):
    words = ["--network", "cnn", "--data", f"npz:{archive}", "--batch-size", "7", "--steps", str(STEPS), "--runs", "2"]
    return main(["compare", *words, "--run-dir", str(folder), *options])


def read(folder):
    return json.loads((folder / "compare.json").read_text())


def test_a_comparison_in_float32(archive, tmp_path, capsys):
    assert compare(archive, tmp_path / "run") == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["compare.json", "compare.png"]
    found = read(tmp_path / "run")
    assert found["verdict"]["holds"]
    assert found["verdict"]["worst"] <= tolerance("step loss", "float32")
    assert found["verdict"]["share_wanted"] == 2 / 3
    assert [len(losses) for losses in found["loss"]["pytorch_in_other_orders"]] == [STEPS, STEPS]
    assert max(found["loss"]["difference"]) > 0
    shown = capsys.readouterr().out
    heading, *runs = shown.splitlines()[:5]
    assert heading.startswith("cnn in float32: 13 steps of batches of 7, ours, PyTorch, and PyTorch in 2 other orders")
    assert runs == [f"{run}: 13 steps done" for run in ("ours", "PyTorch", "PyTorch, order 1", "PyTorch, order 2")]
    for part in ("the first 10 steps", "lie within the band", "holds", "time per step", "torch", "threads"):
        assert part in shown
    pixels = np.asarray(Image.open(tmp_path / "run" / "compare.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_what_does_not_agree_is_said_and_kept(archive, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("train.twin.TINY", 0.01)
    assert compare(archive, tmp_path / "run") == 1
    shown = capsys.readouterr()
    assert shown.err == "error: ours and PyTorch's cnn do not agree in float32\n"
    assert "does not hold" in shown.out
    assert not read(tmp_path / "run")["verdict"]["holds"]
    assert (tmp_path / "run" / "compare.png").exists()


def test_memory_that_is_full_is_told_in_one_line(archive, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocator")

    monkeypatch.setattr("train.compare.ours.train_ours", full)
    assert compare(archive, tmp_path / "run") == 1
    assert capsys.readouterr().err == "error: RESOURCE_EXHAUSTED: Out of memory\n"


def test_without_pytorch_one_line_names_the_extra(archive, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "torch" else find(name, *of))
    assert compare(archive, tmp_path / "run") == 2
    assert capsys.readouterr().err == "error: comparing needs PyTorch: pip install -e '.[torch]'\n"
    assert not (tmp_path / "run").exists()


def test_images_that_would_have_to_stream_are_refused(archive, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("train.devices.COPIES_BYTES", 1 << 10)
    assert compare(archive, tmp_path / "run") == 2
    assert "must have at most 0 MiB of images" in capsys.readouterr().err
    monkeypatch.undo()
    for module in ("train.compare.command", "train.data.source"):
        monkeypatch.setattr(f"{module}.RESIDENT_BYTES", 3 << 20)
    monkeypatch.setattr("train.data.source.Source.resident", False)
    assert compare(archive, tmp_path / "run") == 2
    error = "error: --data must have at most 3 MiB of images, which are held all at once, got npz:"
    assert capsys.readouterr().err.startswith(error)
    assert not (tmp_path / "run").exists()


BAD_VALUES = {
    "--steps 0": "--steps must be at least 1, got 0",
    "--runs 0": "--runs must be at least 1 with --dtype float32, got 0",
    "--runs -1 --dtype float64": "--runs must be at least 0 with --dtype float64, got -1",
    "--batch-size 0": "--batch-size must be at least 1, got 0",
    "--batch-size 24": "--batch-size must be at most the number of training images, 23, got 24",
    "--learning-rate nan": "--learning-rate must be a positive number, got nan",
    "--position sine": "--position belongs to the network multi_head, got --network cnn",
    "--data npz:missing.npz": "npz:missing.npz: no such file",
}


@pytest.mark.parametrize("options", BAD_VALUES)
def test_bad_input_gets_one_line_and_no_folder(archive, tmp_path, capsys, options):
    assert compare(archive, tmp_path / "run", *options.split()) == 2
    assert capsys.readouterr().err == f"error: {BAD_VALUES[options]}\n"
    assert not (tmp_path / "run").exists()


def test_results_are_never_overwritten(archive, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert compare(archive, tmp_path) == 2
    assert capsys.readouterr().err.startswith("error: --run-dir must be new or an empty folder, got ")


STOPS = {
    KeyboardInterrupt: (130, "stopped before the end: nothing to show"),
    OSError: (1, "error: cannot write to {folder}: no space"),
}


@pytest.mark.parametrize("stop", STOPS)
def test_what_ends_it_early_is_no_traceback(archive, tmp_path, capsys, monkeypatch, stop):
    def stopped(*_):
        raise stop("no space")

    monkeypatch.setattr("train.compare.ours.train_ours", stopped)
    status, line = STOPS[stop]
    assert compare(archive, tmp_path / "run") == status
    assert capsys.readouterr().err == line.format(folder=tmp_path / "run") + "\n"


def test_a_loss_that_is_no_number_is_named_and_never_agrees(archive, tmp_path, capsys):
    options = ("--learning-rate", "1e30", "--schedule", "constant", "--steps", "5", "--runs", "1")
    assert compare(archive, tmp_path / "run", *options) == 1
    shown = capsys.readouterr().out
    for side in ("ours", "PyTorch"):
        assert f"the loss of {side} is nan at step " in shown
    assert None in read(tmp_path / "run")["loss"]["ours"]


@pytest.mark.parametrize("options", ["--bogus 1", "--dtype bfloat16", "word"])
def test_unknown_options_get_the_usage_line(options, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", *options.split()])
    assert stop.value.code == 2
    assert "usage: python -m train compare [--help] [--network ...]" in capsys.readouterr().err


def test_help_tells_of_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert not stop.value.code
    shown = capsys.readouterr().out
    for field in dataclasses.fields(Options):
        assert f"--{field.name.replace('_', '-')}" in shown
