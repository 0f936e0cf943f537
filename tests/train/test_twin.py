"""Two trainings of one network: what they share, that what they would not share shows, and the twin's run folder."""

import contextlib
import dataclasses
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flax_attn import to_torch
from flax_attn.testing import relative_error, tolerance
from torch_ref.networks import patch as pt
from train.compare import Options, train
from train.config import PatchConfig
from train.data import Source
from train.loop import NonFiniteError, Run, StoppedError, Tally
from train.runs import RunFolder
from train.signals import Stop
from train.tasks.patch import build_network, mean_error
from train.training import Arguments, main, prepare
from train.training import train as fit_and_finish
from train.twin import Twin, error_of
from train.verdict import judge

from .conftest import FILES, small_images

SAME_ERROR = tolerance("training error", "float32")
STEPS = 6  # of 3 in an epoch
OPTIONS = Options(network="multi_head", position="learned", batch_size=7, steps=STEPS, dtype="float64")
IN_FLOAT32 = Options(network="cbam", batch_size=7, steps=12, dtype="float32")


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Two hundred steps take longer without XLA's optimiser than it does."""


@pytest.fixture(scope="module")
def source():
    return Source("small", small_images(29, 20, 24))


@pytest.fixture(scope="module")
def ours(source):
    return train("", Run, OPTIONS, source)


def trained(source, kind=Twin, order=0, options=OPTIONS):
    return train("", partial(kind, order=order), options, source)


@pytest.fixture(scope="module")
def reference(source):
    return trained(source)


def agree(ours, theirs):
    return judge("float64", ours, theirs)["holds"]


def test_losses_parameters_and_buffers_agree_in_float64(ours, reference):
    assert ours.losses.dtype == np.float64
    assert len(ours.losses) == len(reference.losses) == STEPS
    assert agree(ours, reference)
    assert {"conv.c1a.weight", "attn1.w_qs.weight", "conv.bn1a.running_var"} < set(ours.state_dict)
    for name, array in ours.state_dict.items():
        if not name.endswith("num_batches_tracked"):
            assert relative_error(array, reference.state_dict[name]) <= tolerance("trained parameter", "float64")
    assert len(ours.buffers(reference)) == 4


def test_two_hundred_steps_agree_in_float64():
    options = Options(network="cbam", batch_size=5, steps=200, dtype="float64")
    source = Source("small", small_images(23, 16, 20))
    ours = train("", Run, options, source)
    assert len(np.unique(ours.losses)) == 200
    assert agree(ours, trained(source, options=options))


def test_every_parameter_has_been_trained(source, ours):
    before = to_torch(build_network(OPTIONS.config, *source.shape))
    moved = [not np.array_equal(before[name], array) for name, array in ours.state_dict.items() if "num_" not in name]
    assert all(moved)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_another_order_of_sums_is_the_same_training(reference, source, order):
    other = trained(source, order=order)
    assert agree(other, reference)
    assert not np.array_equal(other.losses, reference.losses)


def test_each_order_and_step_places_the_images_in_its_own_way(source):
    places = {}
    for order in range(3):
        with contextlib.closing(Twin(IN_FLOAT32.config, source, order=order)) as twin:
            places |= {(order, step): twin.order_of(step).tolist() for step in range(4)}
    assert places[0, 0] == places[0, 3] == list(range(7))
    assert all(sorted(each) == list(range(7)) for each in places.values())
    assert len(set(map(tuple, places.values()))) == 9


def test_the_losses_are_one_formula():
    p, y = np.random.default_rng(3).random(11), np.arange(11) % 2
    with jax.enable_x64(True):
        ours = float(mean_error(jax.numpy.asarray(p), jax.numpy.asarray(y)))
    theirs = error_of(torch.tensor(p), torch.tensor(y)).item()
    assert abs(ours - theirs) < tolerance("output", "float64") * theirs


class OtherMasks(Twin):
    def draw(self, path, rate, shape):
        return super().draw(path, rate, shape)[::-1].copy()


class NoDropout(Twin):
    def draw(self, path, rate, shape):
        return np.ones(shape, bool)


class OtherRate(Twin):
    def take_step(self, loss, rate):
        super().take_step(loss, rate * (1 + 1e-5))


class OtherLoss(Twin):
    @staticmethod
    def error_of(p, y):
        return -torch.mean(y * torch.log(p + 2e-8) + (1 - y) * torch.log(1 - p + 2e-8))


class OtherAdam(Twin):
    adam = partial(torch.optim.Adam, eps=1.1e-8)

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.optimizer = self.adam(self.module.parameters())


class WeightDecay(OtherAdam):
    adam = torch.optim.AdamW


@pytest.mark.parametrize("kind", [OtherMasks, NoDropout])
def test_other_masks_show(source, ours, kind):
    assert not agree(ours, trained(source, kind))


class OtherEps(Twin):
    eps = 1.1e-5

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.module.conv.bn1a.eps = self.eps


class OtherMomentum(Twin):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.module.conv.bn2a.momentum = 0.1 * (1 + 1e-3)


@pytest.mark.parametrize("kind", [OtherAdam, WeightDecay, OtherRate, OtherLoss, OtherEps, OtherMomentum])
def test_what_the_twin_does_otherwise_shows(source, ours, kind):
    assert not agree(ours, trained(source, kind))


def test_another_momentum_shows_in_the_buffers_alone(source, ours):
    found = judge("float64", ours, trained(source, OtherMomentum))
    assert [found["holds"], found["losses"]["agree"], found["buffers"]["agree"]] == [False, True, False]


class MuchOtherEps(OtherEps):
    eps = 1e-3


class MuchOtherAdam(OtherAdam):
    adam = partial(torch.optim.Adam, eps=1e-4)


class OtherBetas(OtherAdam):
    adam = partial(torch.optim.Adam, betas=(0.9, 0.99))


@pytest.fixture(scope="module")
def in_float32(source):
    return train("", Run, IN_FLOAT32, source)


@pytest.mark.parametrize(
    ("kind", "agrees"),
    [(Twin, True), (MuchOtherEps, False), (OtherMomentum, False), (MuchOtherAdam, False), (OtherBetas, False)],
)
def test_in_float32_the_same_agrees_and_what_exceeds_the_band_shows(in_float32, source, kind, agrees):
    """The fault is on PyTorch's side, so its runs in other orders have it too."""
    theirs = [trained(source, kind, order, IN_FLOAT32) for order in range(5)]
    assert judge("float32", in_float32, *theirs)["holds"] == agrees


class StopAfter(Stop):
    """Asks a run to leave after it has looked so many times."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def __bool__(self):
        self.looks -= 1
        return self.looks < 0


@pytest.fixture(scope="module")
def photos(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(path, images=source.records)
    return path


def train_run(config, archive, looks=10**9):
    """Trains a twin, until it has looked so often whether to leave, and returns its folder."""
    begun = config.run_dir if (Path(config.run_dir) / "config.json").exists() else None
    arguments = Arguments(dataclasses.replace(config, data=f"npz:{archive}"), begun)
    with contextlib.ExitStack() as stack:
        fit_and_finish(*prepare(arguments, stack, Twin), StopAfter(looks))
    return RunFolder(Path(config.run_dir))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin") / "run"
    return PatchConfig(network="cnn", batch_size=6, epochs=2, learning_rate=1e-3, seed=5, run_dir=str(folder))


@pytest.fixture(scope="module")
def finished(config, photos):
    return train_run(config, photos)


def test_the_folder_holds_what_ours_does(finished):
    names = {path.name for path in finished.path.iterdir()}
    assert names == {*FILES} - {"checkpoints"}
    assert len(finished.history()) == 2
    assert len(finished.step_errors()) == 2 * (23 // 6)


def test_it_is_the_training_of_ours(finished, config, source):
    run, steps, tests = Run(dataclasses.replace(config, run_dir=None), source), [], []
    for epoch in range(config.epochs):
        steps += [float(scores.error[0]) for scores in run.train_epoch(epoch)]
        tests.append(Tally())
        for fed, scores in run.test():
            tests[-1].add(float(scores.error), float(scores.accuracy), int(fed.real.sum()))
    np.testing.assert_allclose(finished.step_errors(), steps, rtol=SAME_ERROR)
    for theirs, ours in zip(finished.history(), tests, strict=True):
        error, accuracy = ours.means
        np.testing.assert_allclose(theirs.test_error, error, rtol=SAME_ERROR)
        assert theirs.test_accuracy == accuracy


def test_the_weights_are_those_of_a_network(finished):
    written = load_file(finished.path / "model.safetensors")
    pt.Net().load_state_dict(written)
    assert all(torch.isfinite(tensor).all() for tensor in written.values())


def test_a_stopped_run_starts_over_with_its_masks(config, photos, tmp_path):
    config = dataclasses.replace(config, network="multi_head", position="learned")
    whole, parts = (dataclasses.replace(config, run_dir=str(tmp_path / name)) for name in ("whole", "parts"))
    expected = train_run(whole, photos)
    with pytest.raises(StoppedError):
        train_run(parts, photos, looks=4)  # in the second epoch
    folder = RunFolder(tmp_path / "parts")
    assert (len(folder.history()), len(folder.step_errors())) == (1, 4)
    torch.manual_seed(99)
    again = train_run(parts, photos)
    assert again.step_errors() == expected.step_errors()
    errors = [[metrics.test_error for metrics in run.history()] for run in (again, expected)]
    assert errors[0] == errors[1]


def test_two_processes_do_not_train_in_one_folder(config, finished, photos, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.path, folder)
    with contextlib.closing(RunFolder(folder)) as other:
        other.hold()
        with pytest.raises(ValueError, match="in which no other process trains"):
            train_run(dataclasses.replace(config, run_dir=str(folder)), photos)


def test_a_non_finite_loss_stops_it(config, photos, tmp_path):
    config = dataclasses.replace(config, learning_rate=1e30, run_dir=str(tmp_path / "run"))
    with pytest.raises(NonFiniteError, match=r"non-finite loss \(.*\) in epoch 1, step \d$"):
        train_run(config, photos)


def test_the_command_for_ours_is_not_offered_to_continue_a_twin(photos, tmp_path, capsys, monkeypatch):
    words = ["--network", "cnn", "--data", f"npz:{photos}", "--batch-size", "6", "--run-dir", str(tmp_path / "run")]
    monkeypatch.setattr("train.training.Stop", lambda: StopAfter(1))
    main(words, Twin)
    assert capsys.readouterr().err == "stopped after step 2; there is no checkpoint yet\n"
