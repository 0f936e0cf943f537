"""``python -m train --task channel`` and ``--task sensor``, from their arguments to their folders."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flax_attn.testing import relative_error, tolerance
from torch_ref.networks.channel import ChannelAttentionClassifier
from torch_ref.networks.sensor import SpatialAttentionNeuralNetwork
from train.__main__ import main
from train.config import TASK_PRESETS, Config
from train.data import source
from train.data.synthetic_arrays import synthetic_arrays
from train.data.synthetic_windows import synthetic_windows
from train.look.load import load_run
from train.runs import RunFolder, read_config
from train.step import train_step
from train.tasks import task_of

FILES = [
    ".lock",
    "attention.png",
    "checkpoints",
    "config.json",
    "confusion.json",
    "curves.png",
    "data.json",
    "machine.json",
    "metrics.jsonl",
    "model.safetensors",
    "normalisation.json",
    "steps.jsonl",
]
COUNT, BATCH, EPOCHS = 233, 31, 4  # 186 train: six steps an epoch
RATES = {"channel": "0.03", "sensor": "0.003"}


def command(task, archive, folder, *more):
    options = ["--task", task, "--data", f"npz:{archive}", "--batch-size", str(BATCH), "--epochs", str(EPOCHS)]
    return [*options, "--learning-rate", RATES[task], "--run-dir", str(folder), *more]


@pytest.fixture(scope="module", params=["channel", "sensor"])
def run(request, tmp_path_factory):
    """A run that nothing happened to: its task, archive and folder, and how often the step was compiled."""
    folder = tmp_path_factory.mktemp(request.param)
    inputs, labels, _ = {"channel": synthetic_arrays, "sensor": synthetic_windows}[request.param](COUNT)
    np.savez(folder / "a.npz", inputs=inputs[:, :61], labels=labels)
    train_step.clear_cache()
    assert main(command(request.param, folder / "a.npz", folder / "run")) == 0
    return request.param, folder / "a.npz", folder / "run", train_step._cache_size()


def metrics_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["images_per_second"]
    return lines


def results(folder):
    """All that a run leaves and that does not tell the time."""
    files = ("steps.jsonl", "model.safetensors", "confusion.json", "normalisation.json", "attention.png")
    return metrics_of(folder), [(folder / name).read_bytes() for name in files]


def test_the_folder_holds_what_it_should(run):
    task, archive, folder, compiled = run
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert compiled == 1
    stored = json.loads((folder / "config.json").read_text())
    assert stored["task"] == task
    assert not {"network", "patches", "token_order", "position"} & stored.keys()
    assert ("ratio" in stored) == (task == "channel")
    assert read_config(folder).data == f"npz:{archive}"
    for name in ("curves.png", "attention.png"):
        pixels = np.asarray(Image.open(folder / name).convert("RGB"))
        assert min(pixels.shape[:2]) > 400
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_it_learns(run):
    metrics = metrics_of(run[2])
    assert metrics[-1]["train_error"] < 0.7 * metrics[0]["train_error"]
    assert metrics[-1]["test_accuracy"] > 0.4  # chance is 0.17


def test_the_twin_loads_the_weights_and_judges_as_the_confusion_says(run):
    task, archive, folder, _ = run
    with np.load(archive) as arrays:
        inputs, labels = arrays["inputs"], arrays["labels"]
    norm = json.loads((folder / "normalisation.json").read_text())
    x = (inputs - np.float32(norm["shift"])) / np.float32(norm["scale"])
    if task == "channel":
        twin, x = ChannelAttentionClassifier(64, 6), x.transpose(0, 3, 1, 2)
    else:
        twin, x = SpatialAttentionNeuralNetwork(x.shape, 6), x[:, None]
    twin.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    with torch.no_grad():
        logits = twin.eval()(torch.from_numpy(x[186:].copy()))
    logits = (logits[0] if task == "channel" else logits).numpy()
    table = np.zeros((6, 6), int)
    np.add.at(table, (labels[186:], logits.argmax(1)), 1)
    found = json.loads((folder / "confusion.json").read_text())
    assert found["confusion"] == table.tolist()
    assert found["accuracy"] == np.trace(table) / 47
    assert abs(found["accuracy"] - metrics_of(folder)[-1]["test_accuracy"]) < tolerance("output", "float32")
    wide = logits.astype(np.float64)
    error = np.mean(np.log(np.exp(wide).sum(1)) - wide[np.arange(47), labels[186:]])
    assert relative_error(np.array(metrics_of(folder)[-1]["test_error"]), error) < tolerance("output", "float32")


def test_a_run_that_was_stopped_goes_on_to_the_bit(run, tmp_path, monkeypatch):
    task, archive, folder, _ = run
    if task == "channel":  # and where the records stream
        monkeypatch.setattr(source, "RESIDENT_BYTES", 0)
    add_step = RunFolder.add_step

    def add_and_signal(self, at, error):
        add_step(self, at, error)
        if at == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add_step", add_and_signal)
        assert main(command(task, archive, tmp_path / "run")) == 128 + signal.SIGTERM
    assert main(["--resume", str(tmp_path / "run")]) == 0
    assert results(tmp_path / "run") == results(folder)


def test_other_labels_are_refused(run, tmp_path, capsys):
    _, archive, folder, _ = run
    with np.load(archive) as arrays:
        np.savez(tmp_path / "b.npz", inputs=arrays["inputs"], labels=np.roll(arrays["labels"], 1))
    (tmp_path / "run").mkdir()
    for name in ("config.json", "data.json"):
        text = (folder / name).read_text().replace(str(archive), str(tmp_path / "b.npz"))
        (tmp_path / "run" / name).write_text(text)
    assert main(["--resume", str(tmp_path / "run")]) == 2
    assert "b.npz is not what the run in" in capsys.readouterr().err


def test_another_task_is_refused(run, capsys):
    task, _, folder, _ = run
    assert main(["--resume", str(folder), "--task", "patch"]) == 2
    assert f"--task is {task} there, got patch" in capsys.readouterr().err


def test_attend_is_for_patches(run, capsys):
    task, _, folder, _ = run
    assert main(["attend", str(folder), "photo.jpg"]) == 2
    told = capsys.readouterr().err
    assert told == f"error: {folder} must hold a run of --task patch to be looked at, got one of --task {task}\n"
    with pytest.raises(ValueError, match="must hold a run of --task patch"):
        load_run(folder)


BAD_VALUES = {
    "--task channel --network cbam": "--network belongs to --task patch, got --task channel",
    "--task channel --network=cnn": "--network belongs to --task patch, got --task channel",
    "--task sensor --patches article": "--patches belongs to --task patch, got --task sensor",
    "--task sensor --token_order pixels": "--token-order belongs to --task patch, got --task sensor",
    "--position none --task channel": "--position belongs to --task patch, got --task channel",
    "--task sensor --ratio 4": "--ratio belongs to --task channel, got --task sensor",
    "--ratio 16": "--ratio belongs to --task channel, got --task patch",
    "--task channel --ratio 0": "--ratio must be at least 1, got 0",
    "--task channel --data stl10": "--data must be synthetic or npz:PATH for arrays, got 'stl10'",
    "--task sensor --data folder:a": "--data must be synthetic or npz:PATH for windows, got 'folder:a'",
    "--task sensor --data npz:none.npz": "npz:none.npz: no such file",
}


@pytest.mark.parametrize("options", BAD_VALUES)
def test_bad_input_gets_one_line_and_no_folder(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(options.split()) == 2
    assert capsys.readouterr().err == f"error: {BAD_VALUES[options]}\n"
    assert not list(tmp_path.iterdir())


def few_channels(folder):
    inputs = np.random.default_rng(0).random((23, 3, 5, 7))
    np.savez(folder / "a.npz", inputs=inputs, labels=np.arange(23) % 2)
    return f"npz:{folder / 'a.npz'}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ratio", "8"], "--ratio must be at most the number of channels, 7, got 8"),
        (["--batch-size", "19"], "--batch-size must be at most the number of training arrays, 18, got 19"),
    ],
)
def test_what_the_arrays_do_not_allow(options, message, tmp_path, capsys):
    words = ["--task", "channel", "--data", few_channels(tmp_path), "--batch-size", "5"]
    assert main([*words, "--run-dir", str(tmp_path / "run"), *options]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "run").exists()


def test_a_batch_of_one_window_that_ends_as_one_number(tmp_path, capsys):
    for series in (16, 17):
        inputs = np.random.default_rng(0).random((7, series, 1))
        np.savez(tmp_path / f"{series}.npz", inputs=inputs, labels=np.arange(7) % 2)
    words = ["--task", "sensor", "--data", f"npz:{tmp_path / '16.npz'}", "--batch-size", "1"]
    assert main([*words, "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "error: --batch-size must be at least 2 for windows of 16x1, got 1\n"
    assert not (tmp_path / "run").exists()
    config = Config(task="sensor", batch_size=1)
    task = task_of(config)
    network = task.build(config, task.open(f"npz:{tmp_path / '17.npz'}"))  # two steps are left
    assert network(np.zeros((1, 17, 1, 1), np.float32)).shape == (1, 2)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, capsys):
    words = ["--task", "channel", "--data", few_channels(tmp_path), "--batch-size", "5", "--epochs", "3"]
    more = ["--learning-rate", "1e38", "--schedule", "constant", "--run-dir", str(tmp_path / "run")]
    assert main([*words, *more]) == 1
    assert capsys.readouterr().err.startswith("error: the loss is ")


def test_few_channels_have_a_gate_too(tmp_path):
    config = Config(task="channel")
    task = task_of(config)
    network = task.build(config, task.open(few_channels(tmp_path)))
    assert network.attention.channel_attention.fc1.kernel.shape == (1, 1, 7, 1)


def test_the_presets_are_what_their_names_say():
    article = TASK_PRESETS["channel"]["article"]
    assert (article.epochs, article.batch_size, article.learning_rate, article.shuffle) == (100, 30, 1e-3, True)
    assert article.schedule == "constant"
    for task, presets in TASK_PRESETS.items():
        assert {(name, task) for name in presets} == {(config.preset, config.task) for config in presets.values()}


def test_a_folder_from_before_there_were_tasks_holds_a_patch_run(tmp_path):
    (tmp_path / "config.json").write_text('{"preset": "article", "token_order": "article", "patches": "article"}')
    assert read_config(tmp_path).task == "patch"
