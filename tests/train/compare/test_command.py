"""``python -m train compare`` from its arguments to its folder and its exit status."""

import importlib.util
import json

import numpy as np
import pytest
from jax.errors import JaxRuntimeError
from PIL import Image

from flax_attn.testing import tolerance
from train.__main__ import main

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
    assert found["options"]["network"] == "cnn"
    assert found["verdict"]["holds"]
    assert found["verdict"]["worst"] <= tolerance("step loss", "float32")
    assert found["verdict"]["share_wanted"] == 2 / 3
    assert [len(losses) for losses in found["loss"]["pytorch_in_other_orders"]] == [STEPS, STEPS]
    assert max(found["loss"]["difference"]) > 0
    assert len(found["loss"]["band"]) == STEPS
    for side in ("ours", "pytorch"):
        assert found["seconds"][side]["median"] == np.median(found["seconds"][side]["steps"][1:])
    shown = capsys.readouterr().out
    heading, *runs = shown.splitlines()[:5]
    assert heading.startswith("cnn in float32: 13 steps of batches of 7, ours, PyTorch, and PyTorch in 2 other orders")
    assert runs == [f"{run}: 13 steps done" for run in ("ours", "PyTorch", "PyTorch, order 1", "PyTorch, order 2")]
    for part in ("the first 10 steps", "lie within the band", "holds", "time per step", "torch", "threads"):
        assert part in shown
    pixels = np.asarray(Image.open(tmp_path / "run" / "compare.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_parameters_of_zero_gradient_are_shown_apart(archive, tmp_path):
    options = ("--network", "conv_multi_head", "--dtype", "float64", "--steps", "2", "--runs", "0")
    assert compare(archive, tmp_path / "run", *options) == 0
    found = read(tmp_path / "run")
    noise = [f"attn1.layers.{head}.key.bias" for head in range(4)]
    assert list(found["parameters_with_zero_gradient"]) == noise
    assert "attn1.layers.0.key.weight" in found["parameters"]
    assert max(found["parameters"].values()) <= tolerance("trained parameter", "float64")


def test_a_non_finite_loss_is_named_and_never_agrees(archive, tmp_path, capsys):
    options = ("--learning-rate", "1e30", "--schedule", "constant", "--steps", "5", "--runs", "1")
    assert compare(archive, tmp_path / "run", *options) == 1
    shown = capsys.readouterr()
    for side in ("ours", "PyTorch"):
        assert f"the loss of {side} is nan at step " in shown.out
    assert "does not hold" in shown.out
    assert shown.err == "error: ours and PyTorch's cnn do not agree in float32\n"
    assert None in read(tmp_path / "run")["loss"]["ours"]
    assert not read(tmp_path / "run")["verdict"]["holds"]
    assert (tmp_path / "run" / "compare.png").exists()


STOPS = {
    KeyboardInterrupt("ctrl-c"): (130, "stopped before the end: no results"),
    OSError("no space"): (1, "error: cannot write to {folder}: no space"),
    JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocator"): (1, "error: RESOURCE_EXHAUSTED: Out of memory"),
}


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: type(stop).__name__)
def test_an_early_end_is_told_in_one_line(archive, tmp_path, capsys, monkeypatch, stop):
    def stopped(*_):
        raise stop

    monkeypatch.setattr("train.compare.train_ours", stopped)
    status, line = STOPS[stop]
    assert compare(archive, tmp_path / "run") == status
    assert capsys.readouterr().err == line.format(folder=tmp_path / "run") + "\n"


def test_without_pytorch_one_line_names_the_extra(archive, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "torch" else find(name, *of))
    assert compare(archive, tmp_path / "run") == 2
    assert capsys.readouterr().err == "error: comparing needs PyTorch: pip install -e '.[torch]'\n"
    assert not (tmp_path / "run").exists()


def test_images_that_would_have_to_stream_are_refused(archive, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("train.devices.COPIES_BYTES", 1 << 10)
    assert compare(archive, tmp_path / "run") == 2
    error = "error: --data must have at most 0 MiB of images, all of which stay in memory, got npz:"
    assert capsys.readouterr().err.startswith(error)
    assert not (tmp_path / "run").exists()


BAD_VALUES = {
    "--steps 0": "--steps must be at least 1, got 0",
    "--runs 0": "--runs must be at least 1 with --dtype float32, got 0",
    "--runs -1 --dtype float64": "--runs must be at least 0 with --dtype float64, got -1",
    "--batch-size 0": "--batch-size must be at least 1, got 0",
    "--batch-size 24": "--batch-size must be at most the number of training images, 23, got 24",
    "--learning-rate nan": "--learning-rate must be a positive number, got nan",
    "--position sine": "--position needs --network ",
    "--network cbma": "did you mean 'cbam'?",
    "--data npz:missing.npz": "npz:missing.npz: no such file",
}


@pytest.mark.parametrize("options", BAD_VALUES)
def test_bad_input_gets_one_line_and_no_folder(archive, tmp_path, capsys, options):
    assert compare(archive, tmp_path / "run", *options.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert BAD_VALUES[options] in error
    assert not (tmp_path / "run").exists()


def test_results_are_never_overwritten(archive, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert compare(archive, tmp_path) == 2
    assert capsys.readouterr().err.startswith("error: --run-dir must be a new or empty folder, got ")


@pytest.mark.parametrize(("options", "status"), [("--bogus 1", 2), ("--dtype bfloat16", 2), ("word", 2), ("--help", 0)])
def test_usage_and_help(options, status, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", *options.split()])
    assert (stop.value.code or 0) == status
    shown = capsys.readouterr()
    assert ("usage: python -m train compare [--help] [--network ...]" in shown.err) == (status == 2)
    assert all(option in (shown.out if status == 0 else shown.err) for option in ("--runs", "--dtype", "--run-dir"))
