"""``python -m train compare`` from its arguments to its folder and its exit status."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from jax.errors import JaxRuntimeError
from PIL import Image

from flax_attn.testing import tolerance
from train.compare import Options, main, run

from ..conftest import small_images

STEPS = 13


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a.npz"
    np.savez(path, images=small_images(29, 20, 24))
    return path


def compare(archive, folder, *options, run=run):
    words = ["--network", "cnn", "--data", f"npz:{archive}", "--batch-size", "7", "--steps", str(STEPS), "--runs", "2"]
    return main([*words, "--run-dir", str(folder), *options], run)


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


def test_without_pytorch_one_line_names_the_extra(archive, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "torch" else find(name, *of))
    assert compare(archive, tmp_path / "run") == 2
    assert capsys.readouterr().err == "error: comparing needs PyTorch: pip install -e '.[torch]'\n"
    assert not (tmp_path / "run").exists()


def test_images_that_would_have_to_stream_are_refused(archive, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("train.devices.COPIES_BYTES", 1 << 10)
    assert compare(archive, tmp_path / "run") == 2
    assert "must have at most 0 MiB of images, all of which stay in memory" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


BAD_VALUES = {
    "--steps 0": "--steps must be at least 1, got 0",
    "--runs 0": "--runs must be at least 1 with --dtype float32, got 0",
    "--runs -1 --dtype float64": "--runs must be at least 0 with --dtype float64, got -1",
    "--batch-size 0": "--batch-size must be at least 1, got 0",
    "--batch-size 24": "--batch-size must be at most the number of training images, 23, got 24",
    "--learning-rate nan": "--learning-rate must be a positive number, got nan",
    "--position sine": "--position needs --network multi_head or additive, got --network cnn",
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
    assert capsys.readouterr().err.startswith("error: --run-dir must be a new or empty folder, got ")


STOPS = {
    "interrupted": (KeyboardInterrupt(), 130, "stopped before the end: no results"),
    "disk": (OSError("no space"), 1, "error: cannot write to {folder}: no space"),
    "memory": (JaxRuntimeError("RESOURCE_EXHAUSTED: of all\nallocator"), 1, "error: RESOURCE_EXHAUSTED: of all"),
}


@pytest.mark.parametrize("stop", STOPS)
def test_what_ends_it_early_is_told_in_one_line(archive, tmp_path, capsys, stop):
    error, status, line = STOPS[stop]

    def stopped(*_):
        raise error

    assert compare(archive, tmp_path / "run", run=stopped) == status
    assert capsys.readouterr().err == line.format(folder=tmp_path / "run") + "\n"


def test_a_non_finite_loss_is_named_and_never_agrees(archive, tmp_path, capsys):
    options = ("--learning-rate", "1e30", "--schedule", "constant", "--steps", "5", "--runs", "1")
    assert compare(archive, tmp_path / "run", *options) == 1
    shown = capsys.readouterr()
    for side in ("ours", "PyTorch"):
        assert f"the loss of {side} is nan at step " in shown.out
    assert "does not hold" in shown.out
    assert shown.err == "error: ours and PyTorch's cnn do not agree in float32\n"
    found = read(tmp_path / "run")
    assert None in found["loss"]["ours"]
    assert not found["verdict"]["holds"]
    assert (tmp_path / "run" / "compare.png").exists()


@pytest.mark.parametrize("options", ["--bogus 1", "--dtype bfloat16", "word"])
def test_unknown_options_are_named(options, capsys):
    with pytest.raises(SystemExit) as stop:
        main(options.split())
    assert stop.value.code == 2
    assert options.split()[-1] in capsys.readouterr().err


def test_help_tells_of_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert not stop.value.code
    shown = capsys.readouterr().out
    for field in dataclasses.fields(Options):
        assert f"--{field.name.replace('_', '-')}" in shown
