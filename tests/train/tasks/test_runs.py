"""``python -m train --task channel`` and ``--task sensor``, from their arguments to their folders, and their loss."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flax_attn.testing import relative_error, tolerance
from torch_ref.networks.channel import ChannelAttentionClassifier
from torch_ref.networks.sensor import SpatialAttentionNeuralNetwork
from train.__main__ import main
from train.config import ChannelConfig, SensorConfig
from train.data.synthetic_labelled import synthetic_arrays, synthetic_windows
from train.look.observe import load_run
from train.runs import read_config
from train.tasks import task_of
from train.tasks.labelled import cross_entropy, is_largest

from ..conftest import compiled
from ..test_resume import stop_at

FILES = [
    ".lock",
    "attention.png",
    "checkpoints",
    "config.json",
    "confusion.json",
    "confusion.png",
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
CLOSE = tolerance("output", "float32")
LOGITS = np.random.default_rng(0).normal(0, 3, (11, 5))
LABELS = np.random.default_rng(1).integers(0, 5, 11)


def words(task, archive, folder, *more):
    options = ["--task", task, "--data", f"npz:{archive}", "--batch-size", str(BATCH), "--epochs", str(EPOCHS)]
    return [*options, "--learning-rate", RATES[task], "--run-dir", str(folder), *more]


@pytest.fixture(scope="module", params=["channel", "sensor"])
def run(request, tmp_path_factory):
    """An undisturbed run: its task, archive and folder, and how often the step was compiled."""
    folder = tmp_path_factory.mktemp(request.param)
    inputs, labels, _ = {"channel": synthetic_arrays, "sensor": synthetic_windows}[request.param](COUNT)
    np.savez(folder / "a.npz", inputs=inputs[:, :61], labels=labels)
    with compiled() as names:
        assert main(words(request.param, folder / "a.npz", folder / "run")) == 0
    return request.param, folder / "a.npz", folder / "run", names.count("train_step")


def metrics_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


def results(folder):
    """All that a run leaves and that does not tell the time."""
    files = ("steps.jsonl", "model.safetensors", "confusion.json", "normalisation.json", "attention.png")
    return metrics_of(folder), [(folder / name).read_bytes() for name in files]


def test_a_run_fills_its_folder_and_learns(run):
    task, archive, folder, compilations = run
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert compilations == 1
    stored = json.loads((folder / "config.json").read_text())
    assert stored["task"] == task
    assert not {"network", "patches", "token_order", "position"} & stored.keys()
    assert ("ratio" in stored) == (task == "channel")
    assert read_config(folder).data == f"npz:{archive}"
    for name in ("curves.png", "attention.png"):
        pixels = np.asarray(Image.open(folder / name).convert("RGB"))
        assert min(pixels.shape[:2]) > 400
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    metrics = metrics_of(folder)
    assert metrics[-1]["train_error"] < 0.7 * metrics[0]["train_error"]
    assert metrics[-1]["test_accuracy"] > 0.4  # chance is 0.17


def test_the_twin_loads_the_weights_and_agrees_with_the_confusion(run):
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
    found, last = json.loads((folder / "confusion.json").read_text()), metrics_of(folder)[-1]
    assert found["confusion"] == table.tolist()
    assert found["accuracy"] == np.trace(table) / 47
    assert abs(found["accuracy"] - last["test_accuracy"]) < CLOSE
    error = formula(logits.astype(np.float64), labels[186:])
    assert relative_error(np.array(last["test_error"]), error) < CLOSE


def test_a_stopped_run_continues_to_the_bit(run, tmp_path, monkeypatch):
    task, archive, folder, _ = run
    if task == "channel":  # and where the records stream
        monkeypatch.setattr("train.data.feed.RESIDENT_BYTES", 0)
    stop_at(8, words(task, archive, tmp_path / "run"))
    assert main(["--resume", str(tmp_path / "run")]) == 0
    assert results(tmp_path / "run") == results(folder)


def test_other_labels_or_another_task_are_refused(run, tmp_path, capsys):
    task, archive, folder, _ = run
    with np.load(archive) as arrays:
        np.savez(tmp_path / "b.npz", inputs=arrays["inputs"], labels=np.roll(arrays["labels"], 1))
    (tmp_path / "run").mkdir()
    for name in ("config.json", "data.json"):
        text = (folder / name).read_text().replace(str(archive), str(tmp_path / "b.npz"))
        (tmp_path / "run" / name).write_text(text)
    assert main(["--resume", str(tmp_path / "run")]) == 2
    assert "b.npz is not what the run in" in capsys.readouterr().err
    assert main(["--resume", str(folder), "--task", "patch"]) == 2
    assert f"task {task} then, patch now" in capsys.readouterr().err


def test_attend_is_for_images(run, capsys):
    task, _, folder, _ = run
    assert main(["attend", str(folder), "photo.jpg"]) == 2
    assert f"got one of --task {task}\n" in capsys.readouterr().err
    with pytest.raises(ValueError, match="must hold a run of --task patch or classes"):
        load_run(folder)


def few_channels(folder):
    inputs = np.random.default_rng(0).random((23, 3, 5, 7))
    np.savez(folder / "a.npz", inputs=inputs, labels=np.arange(23) % 2)
    return f"npz:{folder / 'a.npz'}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ratio", "8"], "ratio must be at most 7, the number of channels, to leave a hidden unit, got 8"),
        (["--batch-size", "19"], "--batch-size must be at most the number of training arrays, 18, got 19"),
    ],
)
def test_what_the_arrays_do_not_allow(options, message, tmp_path, capsys):
    argv = ["--task", "channel", "--data", few_channels(tmp_path), "--batch-size", "5"]
    assert main([*argv, "--run-dir", str(tmp_path / "run"), *options]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "run").exists()


def test_a_batch_of_one_window_that_ends_as_one_number(tmp_path, capsys):
    for series in (16, 17):
        inputs = np.random.default_rng(0).random((7, series, 1))
        np.savez(tmp_path / f"{series}.npz", inputs=inputs, labels=np.arange(7) % 2)
    argv = ["--task", "sensor", "--data", f"npz:{tmp_path / '16.npz'}", "--batch-size", "1"]
    assert main([*argv, "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "error: --batch-size must be at least 2 for windows of 16x1, got 1\n"
    assert not (tmp_path / "run").exists()
    config = SensorConfig(batch_size=1)
    task = task_of(config)
    network = task.build(config, task.open(f"npz:{tmp_path / '17.npz'}"))  # two steps are left
    assert network(np.zeros((1, 17, 1, 1), np.float32)).shape == (1, 2)


def test_few_channels_have_a_gate_too(tmp_path):
    task = task_of(ChannelConfig())
    network = task.build(ChannelConfig(), task.open(few_channels(tmp_path)))
    assert network.attention.channel_attention.fc1.kernel.shape == (1, 1, 7, 1)


def test_a_non_finite_loss_stops_the_run(tmp_path, capsys):
    argv = ["--task", "channel", "--data", few_channels(tmp_path), "--batch-size", "5", "--epochs", "3"]
    more = ["--learning-rate", "1e38", "--schedule", "constant", "--run-dir", str(tmp_path / "run")]
    assert main([*argv, *more]) == 1
    assert capsys.readouterr().err.startswith("error: non-finite loss (")


def formula(logits, labels):
    return np.mean(np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), labels])


def test_the_error_is_minus_the_logarithm_of_the_labels_share():
    expected = formula(LOGITS, LABELS)
    error = cross_entropy(jnp.asarray(LOGITS, jnp.float32), LABELS)
    assert abs(float(error) - expected) < CLOSE * expected
    with jax.enable_x64(True):
        wide = float(cross_entropy(jnp.asarray(LOGITS), LABELS))
    assert abs(wide - expected) < tolerance("output", "float64") * expected
    assert cross_entropy(jnp.asarray(LOGITS, jnp.bfloat16), LABELS).dtype == jnp.float32
    some = cross_entropy(jnp.asarray(LOGITS, jnp.float32), LABELS, np.arange(11) < 7)
    assert abs(float(some) - formula(LOGITS[:7], LABELS[:7])) < CLOSE * expected


def test_the_error_is_finite_for_the_surest_answers():
    error, gradient = jax.value_and_grad(cross_entropy)(jnp.array([[1e4, -1e4, 0.0]]), jnp.array([1]))
    assert float(error) == 2e4
    assert np.isfinite(gradient).all()


def test_right_is_the_largest_logit():
    assert is_largest(jnp.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), jnp.array([1, 2])).tolist() == [True, False]
