"""``python -m train --task classes``, from its arguments to its folder, its draw, its loss and its checkpoints."""

import csv
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import flax_attn
from flax_attn.convert import NAMES
from flax_attn.registry import BLOCKS
from flax_attn.testing import relative_error, tolerance
from torch_ref.originals.original import declare_operators
from train.__main__ import main
from train.config import ClassesConfig, check
from train.data.classes import DEVIATION, MEAN, open_classes
from train.data.synthetic_classes import synthetic_shapes
from train.look.observe import load_run
from train.runs import read_config
from train.tasks import task_of
from train.tasks.classes import (
    ClassesTask,
    augmented,
    build_resnet,
    load_pretrained,
    normalised,
    smoothed_cross_entropy,
)

from ..conftest import compiled
from ..test_resume import stop_at
from .test_runs import FILES

CLOSE = tolerance("output", "float32")
SIDE, COUNT, BATCH, EPOCHS = 32, 43, 8, 2
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 24, 32, 3), np.uint8)
KEY = jax.random.key(3)


def words(photos, folder, *more):
    options = ["--task", "classes", "--data", f"folder:{photos}", "--image-size", SIDE, "--batch-size", BATCH]
    return [*map(str, [*options, "--epochs", EPOCHS, "--learning-rate", 1e-3, "--run-dir", folder]), *more]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Generated shapes as PNG files, in a folder for each class."""
    folder = tmp_path_factory.mktemp("photos")
    images, labels, names = synthetic_shapes(COUNT, size=SIDE)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / names[label]).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / names[label] / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """The folder of an undisturbed run, and how often the step was compiled."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with compiled() as names:
        assert main(words(photos, folder)) == 0
    return folder, names.count("train_step")


def results(folder):
    files = ("steps.jsonl", "model.safetensors", "confusion.json", "attention.png")
    return [(folder / name).read_bytes() for name in files]


def test_a_run_fills_its_folder(run, photos):
    folder, compilations = run
    assert compilations == 1
    assert sorted(path.name for path in folder.iterdir()) == FILES
    config = read_config(folder)
    assert isinstance(config, ClassesConfig)
    assert (config.data, config.image_size) == (f"folder:{photos}", SIDE)
    data, found = (json.loads((folder / name).read_text()) for name in ("data.json", "confusion.json"))
    assert data["classes"] == found["classes"] == sorted(path.name for path in photos.iterdir())
    assert (data["images"], data["image_size"]) == (COUNT, [SIDE, SIDE])
    assert found["accuracy"] <= found["top_5_accuracy"] <= 1


def test_torchvisions_network_loads_the_weights_and_agrees(run, photos):
    declare_operators()
    import torchvision

    folder, _ = run
    source = open_classes(f"folder:{photos}", SIDE)
    theirs = torchvision.models.resnet18(num_classes=6)
    theirs.load_state_dict(load_file(folder / "model.safetensors"))
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize(MEAN.tolist(), DEVIATION.tolist())]
    )
    x = torch.stack([transform(Image.fromarray(image)) for image in source.read(np.array(source.test))])
    with torch.no_grad():
        expected = theirs.eval()(x)
    _, network, _ = load_run(folder)
    ours = network(normalised(jnp.asarray(source.read(np.array(source.test)))))
    assert relative_error(np.asarray(ours), expected.numpy()) <= CLOSE
    labels = source.labels[source.test.start :]
    table = np.zeros((6, 6), int)
    np.add.at(table, (labels, expected.argmax(1).numpy()), 1)
    assert json.loads((folder / "confusion.json").read_text())["confusion"] == table.tolist()
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    plain = torch.nn.functional.cross_entropy(expected, torch.from_numpy(labels).long())  # without smoothing
    assert relative_error(np.array(last["test_error"]), plain.numpy()) < CLOSE


def test_a_stopped_run_continues_to_the_bit_and_where_images_stream(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("train.data.feed.RESIDENT_BYTES", 0)
    stop_at(6, words(photos, tmp_path / "run"))
    assert main(["--resume", str(tmp_path / "run")]) == 0
    assert results(tmp_path / "run") == results(run[0])


def test_other_photos_are_refused(run, photos, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for path in photos.rglob("*.png"):
        name = "a" if path.parent.name == "star" else path.parent.name
        (tmp_path / "photos" / name).mkdir(exist_ok=True)
        (tmp_path / "photos" / name / path.name).write_bytes(path.read_bytes())
    assert main(["--resume", str(run[0]), "--data", f"folder:{tmp_path / 'photos'}"]) == 2
    assert "is not what the run in" in capsys.readouterr().err


def test_attend_tells_the_class_and_draws_where_it_was_seen(run, photos, tmp_path, capsys):
    shown = sorted(photos.rglob("*.png"))[:2]
    assert main(["attend", str(run[0]), *map(str, shown), "--out", str(tmp_path / "a.png")]) == 0
    first, second, picture, table = capsys.readouterr().out.splitlines()
    _, network, _ = load_run(run[0])
    images = np.stack([np.asarray(Image.open(path)) for path in shown])
    p = np.asarray(jax.nn.softmax(network(normalised(jnp.asarray(images)))))
    names = json.loads((run[0] / "data.json").read_text())["classes"]
    expected = [(names[each.argmax()], f"{each.max():.4f}") for each in p]
    assert [first, second] == [f"{path}: {k}, p = {q}" for path, (k, q) in zip(shown, expected, strict=True)]
    with open(table, newline="", encoding="utf-8") as file:
        assert [tuple(row) for row in csv.reader(file)] == [
            ("image", "class", "p"),
            *((str(path), *each) for path, each in zip(shown, expected, strict=True)),
        ]
    assert min(Image.open(picture).size) > 200
    assert main(["attend", str(run[0]), str(shown[0]), "--patch", "0", "0"]) == 2
    assert capsys.readouterr().err == "error: --patch needs a run of --task patch, got one of --task classes\n"


def test_images_are_normalised_as_torchvision_does_it():
    expected = (IMAGES / 255 - MEAN.astype(float)) / DEVIATION.astype(float)
    x, y = ClassesTask(24, True, 0.1).draw(jnp.asarray(IMAGES), jnp.arange(7), jnp.arange(7), KEY, training=False)
    assert relative_error(np.asarray(x), expected) <= CLOSE
    assert x.dtype == jnp.float32
    assert y.tolist() == [*range(7)]


def test_training_images_are_shifted_and_mirrored_by_their_index_alone():
    x, indices = normalised(jnp.asarray(IMAGES)), jnp.arange(10, 17)
    drawn = np.asarray(augmented(x, indices, KEY))
    order = np.array([5, 0, 3])
    assert np.array_equal(augmented(x[order], indices[order], KEY), drawn[order])
    assert not np.array_equal(augmented(x, indices, jax.random.key(4)), drawn)
    with jax.enable_x64(True):
        assert np.array_equal(augmented(x, indices, KEY), drawn)
    task = ClassesTask(24, True, 0.1)
    assert np.array_equal(task.draw(jnp.asarray(IMAGES), indices, indices, KEY, training=True)[0], drawn)
    plain = ClassesTask(24, False, 0.1).draw(jnp.asarray(IMAGES), indices, indices, KEY, training=True)[0]
    assert np.array_equal(plain, x)


def test_an_image_moves_as_a_whole_by_up_to_an_eighth_each_way():
    x = np.asarray(normalised(jnp.asarray(np.repeat(IMAGES[:1], 400, 0))))
    seen = set()
    padded = {flip: np.pad(x[0, :, :: 1 - 2 * flip], ((3, 3), (4, 4), (0, 0))) for flip in (0, 1)}
    for image in np.asarray(augmented(jnp.asarray(x), jnp.arange(400), KEY)):
        found = [
            (flip, row, column)
            for flip, whole in padded.items()
            for row in range(7)
            for column in range(9)
            if np.array_equal(whole[row : row + 24, column : column + 32], image)
        ]
        assert len(found) == 1
        seen |= set(found)
    for place, expected in enumerate(({0, 1}, {*range(7)}, {*range(9)})):
        assert {each[place] for each in seen} == expected


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_the_loss_is_pytorchs_with_label_smoothing(smoothing):
    logits, labels = RNG.normal(0, 3, (11, 5)), RNG.integers(0, 5, 11)
    wanted = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(labels), label_smoothing=smoothing
    )
    with jax.enable_x64(True):
        loss = smoothed_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
        assert relative_error(np.asarray(loss), wanted.numpy()) <= tolerance("output", "float64")
    assert smoothed_cross_entropy(jnp.asarray(logits, jnp.bfloat16), labels, smoothing).dtype == jnp.float32


def saved(path, network, **options):
    torch.save({"state_dict": flax_attn.to_torch(network, tensors=True, **options)}, path)
    return str(path)


def weights_of(network):
    return flax_attn.to_torch(network)


PRETRAINED = {
    "the same": ("none", 6, "none", 6, None),
    "other classes": ("none", 9, "none", 6, "the classifier"),
    "no attention": ("none", 6, "eca", 6, "attention"),
    "behind stages": ("none", 6, "bam", 6, "attention"),
    "neither": ("none", 9, "cbam_spatial", 6, "the classifier and attention"),
    "its own attention": ("eca", 9, "eca", 6, "the classifier"),
}


@pytest.mark.parametrize("case", PRETRAINED)
def test_what_fits_is_loaded_and_the_rest_told(case, tmp_path):
    before, count, after, classes, anew = PRETRAINED[case]
    given = build_resnet(ClassesConfig(attention=before, seed=1), count)
    network = build_resnet(ClassesConfig(attention=after), classes)
    fresh = weights_of(network)
    path = saved(tmp_path / "a.pth", given)
    notes = load_pretrained(network, path)
    assert notes == ([] if anew is None else [f"{path} does not fit {anew}, which start anew"])
    loaded, wanted = weights_of(network), weights_of(given)
    for name, value in loaded.items():
        part = "the classifier" if name.startswith("fc.") else "attention" if "attention" in name else ""
        expected = fresh if anew and part and part in anew else wanted
        assert np.array_equal(value, expected[name]), name


def test_a_checkpoint_of_another_package_takes_its_names(tmp_path):
    given = build_resnet(ClassesConfig(network="cbam_resnet18", seed=1), 6)
    names = "attention-module.ResNet"
    path = saved(tmp_path / "a.pth", given, rename=NAMES[names])
    config = ClassesConfig(network="cbam_resnet18", pretrained=path, names=names)
    source = open_classes_of(tmp_path)
    network = task_of(config).build(config, source)
    assert source.notes == ()
    assert all(np.array_equal(value, weights_of(given)[name]) for name, value in weights_of(network).items())


def open_classes_of(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=RNG.integers(0, 256, (18, 32, 32, 3), np.uint8), labels=np.arange(18) % 6)
    return open_classes(f"npz:{tmp_path / 'a.npz'}", SIDE)


def test_a_file_that_does_not_fit_is_an_error(tmp_path, capsys):
    source = open_classes_of(tmp_path)
    (tmp_path / "text.pth").write_text("no checkpoint")
    bottleneck = saved(tmp_path / "b.pth", build_resnet(ClassesConfig(network="resnet50"), 6))
    messages = {
        str(tmp_path / "text.pth"): "text.pth",
        bottleneck: "layer1.0.conv3.weight: expected no such entry",
    }
    argv = ["--task", "classes", "--data", source.name, "--batch-size", "4", "--run-dir", str(tmp_path / "run")]
    for path, message in messages.items():
        assert main([*argv, "--pretrained", path]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: --pretrained {path}: ")
        assert message in told
    assert main([*argv, "--pretrained", str(tmp_path / "none.pth")]) == 2
    assert "none.pth" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("entry", BLOCKS, ids=lambda entry: entry.name)
def test_attention_is_taken_or_refused_with_the_options(entry):
    config = ClassesConfig(attention=entry.name)
    if entry.kind == "gate" and not entry.needs_size:
        check(config)
    else:
        told = "--attention must be none or a block of kind gate (docs/blocks.md) for maps of any size, got"
        with pytest.raises(ValueError, match=re.escape(f"{told} {entry.name!r}; ")):
            check(config)


@pytest.mark.parametrize("attention", ["multi_head", "self_attention", "conv_attention", "csra", "bottleneck"])
def test_attention_that_no_resnet_has_ends_the_command(attention, tmp_path, capsys):
    assert main(["--task", "classes", "--attention", attention, "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: --attention must be none or a block of kind gate")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_ends_as_one_place_is_refused(tmp_path):
    source = open_classes_of(tmp_path)
    config = ClassesConfig(batch_size=1)
    with pytest.raises(ValueError, match=re.escape("--batch-size must be at least 2 for images of 32x32, got 1")):
        task_of(config).build(config, source)


def test_attention_for_which_a_map_is_too_small_is_refused(tmp_path):
    source = open_classes_of(tmp_path)
    told = "--attention bat for images of 32x32: x must have a height and a width that block_size=4 divides, got"
    with pytest.raises(ValueError, match=re.escape(told)):
        task_of(ClassesConfig()).build(ClassesConfig(attention="bat", batch_size=4), source)
