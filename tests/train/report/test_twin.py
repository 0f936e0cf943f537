"""The twin's runs: the same training as ours, in a run folder with the same files."""

import contextlib
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flax_attn.testing import tolerance
from torch_ref.networks import patch as pt
from train.config import PatchConfig
from train.loop import NonFiniteError, Run, StoppedError, Tally
from train.runs import RunFolder
from train.training import Arguments, prepare
from train.training import train as train_run
from train.twin import Twin

from .conftest import StopAfter

SAME_ERROR = tolerance("training error", "float32")


def train(config, archive, steps=10**9):
    """Trains a twin, at most for so many steps, and returns its folder."""
    begun = config.run_dir if (Path(config.run_dir) / "config.json").exists() else None
    arguments = Arguments(dataclasses.replace(config, data=f"npz:{archive}"), begun)
    with contextlib.ExitStack() as stack:
        train_run(*prepare(arguments, stack, Twin), StopAfter(steps))
    return RunFolder(Path(config.run_dir))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin") / "run"
    return PatchConfig(network="cnn", batch_size=6, epochs=2, learning_rate=1e-3, seed=5, run_dir=str(folder))


@pytest.fixture(scope="module")
def finished(config, small_archive):
    return train(config, small_archive)


def test_the_folder_holds_what_ours_does(finished):
    names = {path.name for path in finished.path.iterdir()}
    assert names == {
        ".lock",
        "attention.png",
        "config.json",
        "curves.png",
        "data.json",
        "localisation.json",
        "machine.json",
        "metrics.jsonl",
        "model.safetensors",
        "steps.jsonl",
    }
    assert len(finished.history()) == 2
    assert len(finished.step_errors()) == 2 * (31 // 6)


def test_it_is_the_training_of_ours(finished, config, small_source):
    run, steps, tests = Run(dataclasses.replace(config, run_dir=None), small_source), [], []
    for epoch in range(config.epochs):
        steps += [float(scores.error) for _, scores in run.train_epoch(epoch)]
        tests.append(Tally())
        for fed, scores in run.test():
            tests[-1].add(float(scores.error), float(scores.accuracy), int(fed.real.sum()))
    np.testing.assert_allclose(finished.step_errors(), steps, rtol=SAME_ERROR)
    for theirs, ours in zip(finished.history(), tests, strict=True):
        np.testing.assert_allclose(theirs.test_error, ours.error, rtol=SAME_ERROR)
        assert theirs.test_accuracy == ours.accuracy


def test_the_weights_are_those_of_a_network(finished):
    written = load_file(finished.path / "model.safetensors")
    pt.Net().load_state_dict(written)
    assert all(torch.isfinite(tensor).all() for tensor in written.values())


def test_a_stopped_run_starts_over_with_its_masks(config, small_archive, tmp_path):
    config = dataclasses.replace(config, network="multi_head", position="learned")
    whole, parts = (dataclasses.replace(config, run_dir=str(tmp_path / name)) for name in ("whole", "parts"))
    expected = train(whole, small_archive)
    with pytest.raises(StoppedError):
        train(parts, small_archive, steps=7)  # in the second epoch
    folder = RunFolder(tmp_path / "parts")
    assert (len(folder.history()), len(folder.step_errors())) == (1, 6)
    torch.manual_seed(99)
    again = train(parts, small_archive)
    assert again.step_errors() == expected.step_errors()
    errors = [[metrics.test_error for metrics in run.history()] for run in (again, expected)]
    assert errors[0] == errors[1]


def test_two_processes_do_not_train_in_one_folder(config, finished, small_archive, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.path, folder)
    with contextlib.closing(RunFolder(folder)) as other:
        other.hold()
        with pytest.raises(ValueError, match="in which no other process trains"):
            train(dataclasses.replace(config, run_dir=str(folder)), small_archive)


def test_a_non_finite_loss_stops_it(config, small_archive, tmp_path):
    config = dataclasses.replace(config, learning_rate=1e30, run_dir=str(tmp_path / "run"))
    with pytest.raises(NonFiniteError, match=r"non-finite loss \(.*\) in epoch 1, step \d, at learning rate"):
        train(config, small_archive)
