"""``python -m train compare`` from its arguments to its folder and its exit status."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jax.errors import JaxRuntimeError
from PIL import Image

from flax_attn.testing import tolerance
from train.__main__ import main
from train.compare import Options

from .conftest import small_images

ROOT = Path(__file__).parents[2]
STEPS = 13


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a.npz"
    np.savez(path, images=small_images(29, 20, 24))
    return path


def compare(archive, folder, *options):
    words = ["--network", "cnn", "--data", f"npz:{archive}", "--batch-size", "7", "--steps", str(STEPS)]
    return main(["compare", *words, "--run-dir", str(folder), *options])


def read(folder):
    return json.loads((folder / "compare.json").read_text())


def test_a_comparison_in_float32(archive, tmp_path, capsys):
    assert compare(archive, tmp_path / "run", "--dtype", "float32") == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["compare.json", "compare.png"]
    found = read(tmp_path / "run")
    assert [found["holds"], found["losses"]["agree"], found["buffers"]["agree"]] == [True] * 3
    assert found["losses"]["band"][-1] > 0
    assert max(found["losses"]["difference"]) > 0
    shown = capsys.readouterr().out
    heading, *runs = shown.splitlines()[:7]
    assert heading == "cnn in float32: ours against PyTorch, 13 steps of batches of 7"
    names = ["ours", *(f"PyTorch, order {number}" for number in range(5))]
    assert [line.startswith(name) and "100%" in line for line, name in zip(runs, names, strict=True)] == [True] * 6
    for part in ("losses agree: they differ by", "buffers agree: they differ by", "is allowed"):
        assert part in shown
    pixels = np.asarray(Image.open(tmp_path / "run" / "compare.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_the_default_is_float64_also_for_images_that_are_streamed(archive, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("train.data.feed.RESIDENT_BYTES", 1 << 10)
    assert compare(archive, tmp_path / "run") == 0
    found = read(tmp_path / "run")
    assert found["options"]["dtype"] == "float64"
    assert max(found["losses"]["difference"]) <= tolerance("step loss", "float64")
    assert set(found["losses"]["band"]) == {0}
    assert set(found["losses"]["allowed"]) == {tolerance("step loss", "float64")}


def test_without_pytorch_one_line_names_the_extra(archive, tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-m", "train", "compare", "--data", f"npz:{archive}", "--run-dir", "run"]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: compare needs PyTorch: pip install -e '.[torch]'\n"
    assert not (tmp_path / "run").exists()


BAD_VALUES = {
    "--steps 0": "--steps must be at least 1, got 0",
    "--steps -1": "--steps must be at least 1, got -1",
    "--batch-size 0": "--batch-size must be at least 1, got 0",
    "--batch-size 24": "--batch-size must be at most the number of training images, 23, got 24",
    "--learning-rate nan": "--learning-rate must be a positive number, got nan",
    "--position sine": "--position needs a --network over tokens, multi_head, additive, ufo, "
    "self_attention, external, external_multi_head, differential, got --network cnn",
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
    "interrupted": (KeyboardInterrupt(), 130, "stopped before the end"),
    "disk": (OSError("no space"), 1, "error: no space"),
    "memory": (JaxRuntimeError("RESOURCE_EXHAUSTED: of all\nallocator"), 1, "error: RESOURCE_EXHAUSTED: of all"),
}


@pytest.mark.parametrize("stop", STOPS)
def test_what_ends_it_early_is_told_in_one_line(archive, tmp_path, capsys, monkeypatch, stop):
    error, status, line = STOPS[stop]

    def stopped(*_):
        raise error

    monkeypatch.setattr("train.compare.train", stopped)
    assert compare(archive, tmp_path / "run") == status
    assert capsys.readouterr().err == line + "\n"


def test_a_non_finite_loss_is_named_and_never_agrees(archive, tmp_path, capsys):
    options = ("--learning-rate", "1e30", "--steps", "5", "--dtype", "float32")
    assert compare(archive, tmp_path / "run", *options) == 1
    shown = capsys.readouterr()
    assert "losses do not agree: they differ by nan at step " in shown.out
    assert shown.err == "error: ours and PyTorch's cnn do not agree in float32\n"
    found = read(tmp_path / "run")
    assert not np.isfinite(found["losses"]["ours"]).all()
    assert not found["holds"]
    assert (tmp_path / "run" / "compare.png").exists()


@pytest.mark.parametrize("options", ["--bogus 1", "--dtype bfloat16", "word"])
def test_unknown_options_are_named(options, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", *options.split()])
    assert stop.value.code == 2
    assert options.split()[-1] in capsys.readouterr().err


def test_help_tells_of_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert not stop.value.code
    shown = capsys.readouterr().out
    for field in dataclasses.fields(Options):
        assert f"--{field.name.replace('_', '-')}" in shown
