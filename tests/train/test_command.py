"""``python -m train`` from its arguments to its folder and its exit status."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import flax_attn
from flax_attn.testing import relative_error, tolerance
from torch_ref.networks import patch as pt
from train.__main__ import main
from train.cli import Arguments
from train.config import OWN_OPTIONS, PRESETS, Config
from train.data import open_source
from train.data.opening import KINDS
from train.networks import NETWORKS, build_network
from train.step import train_step

from .conftest import HEEDING, small_images, wait_for

KEYS = ["epoch", "train_error", "train_accuracy", "test_error", "test_accuracy", "images_per_second"]
FILES = [
    ".lock",
    "attention.png",
    "checkpoints",
    "config.json",
    "curves.png",
    "data.json",
    "localisation.json",
    "machine.json",
    "metrics.jsonl",
    "model.safetensors",
    "steps.jsonl",
]
ROOT = Path(__file__).parents[2]
SAME_ERROR = tolerance("training error", "float32")


def command(archive, folder, *options):
    return main(["--data", f"npz:{archive}", "--batch-size", "8", "--epochs", "2", "--run-dir", str(folder), *options])


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run that several tests look at; 39 images, so that no split fills its batches."""
    folder = tmp_path_factory.mktemp("run") / "new" / "folder"
    archive = tmp_path_factory.mktemp("data") / "a.npz"
    np.savez(archive, images=small_images(39))
    train_step.clear_cache()
    assert command(archive, folder, "--epochs", "6") == 0
    return folder, archive, train_step._cache_size()


def test_the_folder_holds_what_it_should(run):
    folder, archive, _ = run
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert Config(**json.loads((folder / "config.json").read_text())) == Config(
        data=f"npz:{archive}", batch_size=8, epochs=6, run_dir=str(folder)
    )
    metrics = read_metrics(folder)
    assert [list(line) for line in metrics] == [KEYS] * 6
    assert [line["epoch"] for line in metrics] == list(range(1, 7))
    assert np.isfinite([list(line.values()) for line in metrics]).all()


def test_the_step_is_compiled_once_for_the_run(run):
    assert run[2] == 1


def test_training_decreases_the_error(run):
    errors = [line["train_error"] for line in read_metrics(run[0])]
    assert errors[-1] < 0.5 * errors[0]


def test_the_pictures_show_something(run):
    for name in ("curves.png", "attention.png"):
        pixels = np.asarray(Image.open(run[0] / name).convert("RGB"))
        assert min(pixels.shape[:2]) > 400
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_the_weights_load_into_the_reference_and_judge_alike(run):
    folder, archive, _ = run
    images = open_source(f"npz:{archive}").images
    x = (images.astype(np.float32) - 128) / 128
    ours = build_network(Config(), *images.shape[1:3])
    flax_attn.from_torch(ours, folder / "model.safetensors")
    ours.eval()
    theirs = pt.NetCBAM().eval()
    theirs.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    with torch.no_grad():
        expected, _ = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    p = np.asarray(ours(jnp.asarray(x))[0])
    assert relative_error(p, expected.numpy()) <= tolerance("output", "float32")


def test_a_run_repeats_itself(run, tmp_path):
    folder, archive, _ = run
    assert command(archive, tmp_path / "again", "--epochs", "6") == 0
    for again, first in zip(read_metrics(tmp_path / "again"), read_metrics(folder), strict=True):
        del again["images_per_second"], first["images_per_second"]
        assert again == first


def test_all_cores_share_a_batch_and_come_to_the_same(run, tmp_path):
    folder, archive, _ = run
    options = ["--data", f"npz:{archive}", "--batch-size", "8", "--epochs", "6", "--run-dir", str(tmp_path / "run")]
    shell = subprocess.run(
        [sys.executable, "-m", "train", *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = shell.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == [f"{n}/6" for n in range(1, 7)]
    assert "min test error" in shell.stdout
    first, again = read_metrics(folder)[0], read_metrics(tmp_path / "run")[0]
    assert abs(first["train_error"] - again["train_error"]) < SAME_ERROR * first["train_error"]


@pytest.mark.parametrize(
    "options",
    [
        ["--network", "multi_head", "--token-order", "article", "--position", "learned"],
        ["--preset", "article", "--network", "multi_head", "--token-order", "pixels", "--position", "sine"],
        ["--network", "cnn", "--dtype", "bfloat16", "--no-shuffle"],
    ],
)
def test_options_reach_the_run(archive, tmp_path, options):
    assert command(archive, tmp_path / "run", "--epochs", "1", *options) == 0
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    for flag, value in zip(options[::2], options[1::2], strict=False):
        if not value.startswith("--"):
            assert written[flag[2:].replace("-", "_")] == value


def test_the_presets_are_what_their_names_say():
    article = dataclasses.asdict(PRESETS["article"])
    assert {name: article[name] for name in ("epochs", "batch_size", "learning_rate", "shuffle", "schedule")} == {
        "epochs": 50,
        "batch_size": 10,
        "learning_rate": 1e-4,
        "shuffle": False,
        "schedule": "constant",
    }
    assert (article["patches"], article["token_order"]) == ("article", "article")
    assert (PRESETS["quick"].patches, PRESETS["quick"].token_order) == ("per_image", "pixels")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_built_by_name(name):
    p, attended = build_network(Config(network=name), 32, 36)(jnp.zeros((2, 32, 36, 3)))
    assert (p.shape, attended.shape) == ((2,), (2, 8, 9, 32))


BAD_VALUES = {
    "--epochs 0": "--epochs must be at least 1, got 0",
    "--batch-size 0": "--batch-size must be at least 1, got 0",
    "--workers -1": "--workers must be at least 0, got -1",
    "--batch-size 33": "--batch-size must be at most the number of training images, 32, got 33",
    "--learning-rate nan": "--learning-rate must be a positive number, got nan",
    "--learning-rate -1": "--learning-rate must be a positive number, got -1.0",
    "--seed -1": "--seed must lie in [0, 2**32), got -1",
    "--network cnn --position sine": "--position belongs to the network multi_head, got --network cnn",
    "--ratio 3": "--ratio belongs to --task channel, got --task patch",
    "--network cbam --position sine": "--position belongs to the network multi_head, got --network cbam",
    "--network cbam --token-order article": "--token-order belongs to the network multi_head, got --network cbam",
    "--data npz:missing.npz": "npz:missing.npz: no such file",
    "--data video": f"--data must be {KINDS}, got 'video'",
}


@pytest.mark.parametrize("options", BAD_VALUES)
def test_bad_input_gets_one_line_and_no_folder(archive, tmp_path, capsys, options):
    assert command(archive, tmp_path / "run", *options.split()) == 2
    assert capsys.readouterr().err == f"error: {BAD_VALUES[options]}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_results_are_never_overwritten(archive, tmp_path, capsys, kind):
    there = tmp_path / "run" if kind == "file" else tmp_path / "run" / "notes.txt"
    there.parent.mkdir(exist_ok=True)
    there.write_text("mine")
    assert command(archive, tmp_path / "run") == 2
    assert capsys.readouterr().err.startswith("error: --run-dir must be new or an empty folder, got ")
    assert there.read_text() == "mine"


@pytest.mark.parametrize("word", ["stl10", "atend", ""])
def test_an_unknown_first_word_gets_those_that_are_known(word, capsys):
    assert main([word]) == 2
    told = "error: the first word must be an option of training or one of attend, compare, report, got "
    assert capsys.readouterr().err == f"{told}{word!r}\n"


@pytest.mark.parametrize("options", ["--bogus 1", "--network vgg", "--epochs many", "--preset", "--preset x"])
def test_unknown_options_get_the_usage_line(options, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(options.split())
    assert stop.value.code == 2
    assert "usage: python -m train [--help] [--preset ...] [--task ...] [--network ...]" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert not stop.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("task", OWN_OPTIONS)
def test_the_help_for_a_task_leaves_out_the_options_of_others(task, capsys):
    shown = help_of(capsys, "--task", task)
    assert "--data KIND[:PATH]" in shown
    assert "images, arrays or windows" in shown  # what each option is
    for owner, own in OWN_OPTIONS.items():
        for option in own:
            assert (f"--{option.replace('_', '-')} " in shown) == (owner == task)


def test_the_help_is_whole_sentences_and_tells_what_none_stands_for(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    shown = " ".join(help_of(capsys).split())
    for field in dataclasses.fields(Arguments):
        assert f"--{field.name.replace('_', '-')}" in shown
    assert "the class of an array, behind a gate for its channels; sensor:" in shown
    assert "threads of this one. (default: all cores but one, at most 4)" in shown
    assert "(default: None)" not in shown


def test_a_loss_that_is_no_number_stops_the_run(archive, tmp_path, capsys):
    assert command(archive, tmp_path / "run", "--learning-rate", "1e38", "--schedule", "constant") == 1
    message = capsys.readouterr().err
    assert message.startswith("error: the loss is nan in epoch 1, step ")
    assert "at learning rate 1e+38" in message
    assert (tmp_path / "run" / "config.json").exists()


def test_a_run_is_no_other_process_s_and_says_how_to_go_on_when_interrupted(archive, tmp_path, capsys):
    folder = tmp_path / "run"
    options = ["--data", f"npz:{archive}", "--batch-size", "8", "--epochs", "4000", "--run-dir", str(folder)]
    command = [sys.executable, "-c", HEEDING, *options]
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
    assert message.splitlines()[-1] == f"to go on: python -m train --resume {folder}"


@pytest.mark.parametrize("name", ["", "x" * 300])
def test_a_run_dir_that_cannot_be(archive, name, capsys):
    assert command(archive, name) == 2
    assert "--run-dir must" in capsys.readouterr().err


def test_photographs_can_be_learned_from(tmp_path, photos):
    images = open_source(f"npz:{photos}").images[:60]
    np.savez(tmp_path / "some.npz", images=images)
    assert command(tmp_path / "some.npz", tmp_path / "run", "--epochs", "4") == 0
    metrics = read_metrics(tmp_path / "run")
    assert metrics[-1]["train_error"] < metrics[0]["train_error"]
