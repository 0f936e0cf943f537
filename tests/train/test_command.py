"""``python -m train`` from its arguments to its folder and its exit status."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import flax_attn
from flax_attn.testing import relative_error, tolerance
from torch_ref.networks import patch as pt
from train.__main__ import keep_programs, main
from train.config import PRESETS, PatchConfig
from train.data import KINDS, open_source
from train.runs import read_config
from train.tasks.patch import build_network

from .conftest import FILES, HEEDING, compiled, small_images, wait_for

KEYS = ["epoch", "train_error", "train_accuracy", "test_error", "test_accuracy", "images_per_second"]
ROOT = Path(__file__).parents[2]
SAME_ERROR = tolerance("training error", "float32")
OWN = {  # the options that not all tasks have
    "patch": ("network", "patches", "token_order", "position"),
    "channel": ("ratio",),
    "sensor": (),
    "classes": ("network", "attention", "pretrained", "names", "image_size", "augment", "label_smoothing"),
}


def words(archive, folder, *options):
    return ["--data", f"npz:{archive}", "--batch-size", "8", "--epochs", "2", "--run-dir", str(folder), *options]


def read_metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [KEYS] * len(lines)
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run for several tests, of 39 images, so that neither split fills its batches."""
    folder = tmp_path_factory.mktemp("run") / "new" / "folder"
    archive = tmp_path_factory.mktemp("data") / "a.npz"
    np.savez(archive, images=small_images(39))
    with compiled() as names:
        assert main(words(archive, folder, "--epochs", "6")) == 0
    return folder, archive, names.count("train_step")


def test_a_run_fills_its_folder_and_learns(run):
    folder, archive, compilations = run
    assert compilations == 1
    assert sorted(path.name for path in folder.iterdir()) == FILES
    expected = PatchConfig(data=f"npz:{archive}", batch_size=8, epochs=6, run_dir=str(folder))
    assert json.loads((folder / "config.json").read_text()) == dataclasses.asdict(expected)
    assert read_config(folder) == expected
    metrics = read_metrics(folder)
    assert [line["epoch"] for line in metrics] == list(range(1, 7))
    assert np.isfinite([list(line.values()) for line in metrics]).all()
    assert metrics[-1]["train_error"] < 0.5 * metrics[0]["train_error"]
    for name in ("curves.png", "attention.png"):
        pixels = np.asarray(Image.open(folder / name).convert("RGB"))
        assert min(pixels.shape[:2]) > 400
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_the_weights_load_into_the_reference_and_agree(run):
    folder, archive, _ = run
    images = open_source(f"npz:{archive}").records
    x = (images.astype(np.float32) - 128) / 128
    ours = build_network(PatchConfig(), *images.shape[1:3])
    flax_attn.from_torch(ours, folder / "model.safetensors")
    ours.eval()
    theirs = pt.NetCBAM().eval()
    theirs.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    with torch.no_grad():
        expected, _ = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    p = np.asarray(ours(jnp.asarray(x))[0])
    assert relative_error(p, expected.numpy()) <= tolerance("output", "float32")


def test_a_run_is_repeatable_and_all_cores_agree(run, tmp_path):
    folder, archive, _ = run
    assert main(words(archive, tmp_path / "again", "--epochs", "6")) == 0
    assert read_metrics(tmp_path / "again") == read_metrics(folder)
    command = [sys.executable, "-m", "train", *words(archive, tmp_path / "caf\xe9", "--epochs", "6")]
    terminal = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "300"}  # which lacks a letter
    shell = subprocess.run(command, cwd=ROOT, env=terminal, capture_output=True, text=True, check=True)
    assert f"run folder: {tmp_path}/caf\\xe9\n" in shell.stdout
    lines = shell.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == [f"{n}/6" for n in range(1, 7)]
    first, again = read_metrics(folder)[0], read_metrics(tmp_path / "caf\xe9")[0]
    assert abs(first["train_error"] - again["train_error"]) < SAME_ERROR * first["train_error"]


@pytest.mark.parametrize(
    "options",
    [
        ["--preset", "article", "--network", "multi_head", "--token-order", "pixels", "--position", "learned"],
        ["--network", "cnn", "--dtype", "bfloat16", "--no-shuffle", "--seed", "3"],
    ],
)
def test_options_reach_the_run(archive, tmp_path, options):
    assert main(words(archive, tmp_path / "run", "--epochs", "1", *options)) == 0
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["shuffle"] == ("--preset" not in options and "--no-shuffle" not in options)
    for flag, value in itertools.pairwise(options):
        if flag.startswith("--") and not value.startswith("--"):
            assert str(written[flag[2:].replace("-", "_")]) == value


def test_the_presets_are_the_tutorials():
    article = {
        "patch": {"epochs": 50, "batch_size": 10, "learning_rate": 1e-4, "shuffle": False, "schedule": "constant"}
        | {"patches": "article", "token_order": "article"},
        "channel": {"epochs": 100, "batch_size": 30, "learning_rate": 1e-3, "shuffle": True, "schedule": "constant"},
        "sensor": {},
        "classes": {},
    }
    for task, presets in PRESETS.items():
        assert {name: (config.preset, config.task) for name, config in presets.items()} == {
            name: (name, task) for name in ("quick", "article")
        }
        assert article[task].items() <= vars(presets["article"]).items()
    quick = PRESETS["patch"]["quick"]
    assert (quick.patches, quick.token_order) == ("per_image", "pixels")


BAD_VALUES = {
    "--epochs 0": "--epochs must be at least 1, got 0",
    "--batch-size 0": "--batch-size must be at least 1, got 0",
    "--batch-size 33": "--batch-size must be at most the number of training images, 32, got 33",
    "--learning-rate nan": "--learning-rate must be a positive number, got nan",
    "--learning-rate -1": "--learning-rate must be a positive number, got -1.0",
    "--seed -1": "--seed must lie in [0, 2**32), got -1",
    "--network cbma": "--network must be cnn or a block of flax_attn.list_blocks(), got 'cbma'; did you mean 'cbam'?",
    "--network cnn --position sine": "--position needs a --network over tokens, multi_head, additive, "
    "ufo, self_attention, external, external_multi_head, differential, got --network cnn",
    "--network cbam --token-order article": "--token-order needs a --network over tokens, multi_head, "
    "additive, ufo, self_attention, external, external_multi_head, differential, got --network cbam",
    "--data npz:missing.npz": "npz:missing.npz: no such file",
    "--data video": f"--data must be {KINDS}, got 'video'",
    "--task classes --network resnet19": "--network must be a name of flax_attn.networks.resnet.RESNETS, got 'resnet19'"
    "; did you mean 'resnet18' or 'resnet152' or 'resnet101'?",
    "--task classes --attention cbma": "--attention must be none or a block of kind gate (docs/blocks.md) for maps of "
    "any size, got 'cbma'; did you mean 'cbam'?",
    "--task classes --attention eca --network seresnet50": "--attention needs --network resnet18 or resnet34 or "
    "resnet50 or resnet101 or resnet152, got --network seresnet50",
    "--task classes --names timm.ResNet": "--names needs --pretrained, got --names timm.ResNet alone",
    "--task classes --image-size 15": "--image-size must be at least 16, got 15",
    "--task classes --label-smoothing 1": "--label-smoothing must lie in [0, 1), got 1.0",
    "--task classes --data stl10": "--data must be synthetic, folder:PATH or npz:PATH for classes of images, "
    "got 'stl10'",
    "--task channel --ratio 0": "--ratio must be at least 1, got 0",
    "--task channel --data stl10": "--data must be synthetic or npz:PATH for arrays, got 'stl10'",
    "--task sensor --data folder:a": "--data must be synthetic or npz:PATH for windows, got 'folder:a'",
}


@pytest.mark.parametrize("options", BAD_VALUES)
def test_bad_input_gets_one_line_and_no_folder(archive, tmp_path, capsys, options):
    assert main(words(archive, tmp_path / "run", *options.split())) == 2
    assert capsys.readouterr().err == f"error: {BAD_VALUES[options]}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_results_are_never_overwritten(archive, tmp_path, capsys, kind):
    there = tmp_path / "run" if kind == "file" else tmp_path / "run" / "notes.txt"
    there.parent.mkdir(exist_ok=True)
    there.write_text("mine")
    assert main(words(archive, tmp_path / "run")) == 2
    assert capsys.readouterr().err.startswith("error: --run-dir must be a new or empty folder, got ")
    assert there.read_text() == "mine"
    for name in ("", "x" * 300):
        assert main(words(archive, name)) == 2
        assert "--run-dir must" in capsys.readouterr().err


UNKNOWN = {
    "atend": "atend",
    "--bogus 1": "--bogus",
    "--epochs many": "many",
    "--preset": "--preset",
    "--preset x": "x",
    "--task chess": "chess",
    "--ratio 3": "--ratio",
    "--task channel --network=cnn": "--network",
    "--position none --task sensor": "--position",
    "--task sensor --token_order pixels": "--token_order",
    "--task classes --patches article": "--patches",
}


@pytest.mark.parametrize("options", UNKNOWN)
def test_unknown_options_are_named(options, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(options.split())
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert UNKNOWN[options] in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", PRESETS)
def test_the_help_of_a_task_has_its_own_options(task, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as stop:
        main(["--task", task, "--help"])
    assert not stop.value.code
    shown = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(PRESETS[task]["quick"]):
        assert f"--{field.name.replace('_', '-')}" in shown
    for option in {option for own in OWN.values() for option in own}:
        assert (f"--{option.replace('_', '-')}" in shown.replace(",", " ").split()) == (option in OWN[task])
    assert "--data KIND[:PATH]" in shown
    assert "--resume DIR" in shown
    assert "(default: None)" not in shown


def test_a_non_finite_loss_stops_the_run(archive, tmp_path, capsys):
    assert main(words(archive, tmp_path / "run", "--learning-rate", "1e38", "--schedule", "constant")) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: non-finite loss (nan) in epoch 1, step ")
    assert (tmp_path / "run" / "config.json").exists()


def test_a_run_holds_its_folder_and_says_how_to_continue_when_interrupted(archive, tmp_path, capsys):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HEEDING, *words(archive, folder, "--epochs", "4000")]
    shell = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(shell, (folder / "steps.jsonl").exists)
    config = (folder / "config.json").read_text()
    assert main(["--resume", str(folder), "--keep", "7"]) == 2
    refused = (
        f"--run-dir or --resume must name a folder in which no other process trains, got {folder}, in which one does"
    )
    assert capsys.readouterr().err == f"error: {refused}\n"
    assert (folder / "config.json").read_text() == config
    shell.send_signal(signal.SIGINT)
    _, message = shell.communicate(timeout=60)
    assert shell.returncode == 130
    assert "stopped after step " in message
    assert message.splitlines()[-1] == f"to continue: python -m train --resume {folder}"


def test_photographs_can_be_learned_from(tmp_path, photos):
    images = open_source(f"npz:{photos}").records[:40]
    np.savez(tmp_path / "some.npz", images=images[:, 24:56, 24:60])
    assert main(words(tmp_path / "some.npz", tmp_path / "run", "--epochs", "6")) == 0
    metrics = read_metrics(tmp_path / "run")
    assert metrics[-1]["train_error"] < metrics[0]["train_error"]


@pytest.fixture
def kept(monkeypatch):
    """Where programs are kept in an environment, if JAX is asked to."""

    def folder(**environment):
        settings = {}
        monkeypatch.setattr(jax.config, "update", settings.__setitem__)
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        keep_programs()
        return settings.get("jax_compilation_cache_dir")

    return folder


def test_programs_are_kept_in_the_users_cache(kept, tmp_path):
    assert kept(XDG_CACHE_HOME=tmp_path / "new") == str(tmp_path / "new" / "flax_attn" / "jax")
    assert os.listdir(tmp_path / "new" / "flax_attn") == ["jax"]
    assert kept(XDG_CACHE_HOME="", HOME=tmp_path) == str(tmp_path / ".cache" / "flax_attn" / "jax")


@pytest.mark.parametrize("told", ["elsewhere", ""])  # the latter turns it off
def test_programs_are_kept_where_jax_is_told(told, kept, tmp_path):
    assert kept(JAX_COMPILATION_CACHE_DIR=told, XDG_CACHE_HOME=tmp_path) is None
    assert os.listdir(tmp_path) == []


def test_no_programs_are_kept_where_nothing_can_be_written(kept, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert kept(XDG_CACHE_HOME=tmp_path / "file") is None
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as for another user's folder
    assert kept(XDG_CACHE_HOME=tmp_path) is None


def test_a_damaged_cache_breaks_no_run(archive, tmp_path):
    cache, off = tmp_path / "flax_attn" / "jax", ("JAX_COMPILATION_CACHE_DIR",)
    environment = {name: value for name, value in os.environ.items() if name not in off}
    found = []
    for name in ("first", "second"):
        command = [sys.executable, "-m", "train", *words(archive, tmp_path / name, "--epochs", "1", "--network", "cnn")]
        shell = subprocess.run(
            command, cwd=ROOT, env=environment | {"XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, text=True
        )
        assert shell.returncode == 0, shell.stderr
        found.append((tmp_path / name / "steps.jsonl").read_text())
        programs = list(cache.iterdir())
        assert any("train_step" in path.name for path in programs)
        for path in programs:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert found[0] == found[1]
    assert "Error reading persistent compilation cache entry" in shell.stderr
