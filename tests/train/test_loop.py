"""Blocks of training steps: where they end, and that their length changes no number."""

import contextlib
import itertools
import json
import math

import numpy as np
import pytest

from flax_attn.testing import tolerance
from train.checkpoints import Checkpoints, steps_in
from train.config import PatchConfig, SensorConfig
from train.data import Source
from train.data.feed import decode
from train.data.labelled import Labelled
from train.data.synthetic_labelled import synthetic_windows
from train.loop import NonFiniteError, Run, StoppedError, fit
from train.runs import RunFolder
from train.show import Bar
from train.signals import Stop
from train.tasks.labelled import WINDOWS

from .conftest import compiled, small_images
from .test_step import leaves

STEPS = 8  # in an epoch
IMAGES = Source("small", small_images(40, 16, 16))  # 32 train
WINDOWS_OF = Labelled("small", WINDOWS, *synthetic_windows(40)[:2])
OPTIONS = {"batch_size": 4, "epochs": 2}


def new_run(one_program, network="multi_head", **options):
    return in_blocks(Run(PatchConfig(**OPTIONS, network=network, **options), IMAGES), one_program)


def in_blocks(run, one_program):
    run.one_program = one_program  # as on a GPU
    return run


def take_epoch(run, epoch, seconds, first=0):
    """Takes an epoch, each block as if the steps of the one before had taken a second; returns the blocks' scores."""
    blocks = []
    for scores in run.train_epoch(epoch, first, seconds):
        blocks.append(scores)
        run.step_seconds = 1.0
    return blocks


def lengths(blocks):
    return [len(scores.error) for scores in blocks]


def errors(blocks):
    return np.concatenate([scores.error for scores in blocks])


@pytest.fixture(scope="module", params=[False, True], ids=["step by step", "in one program"])
def one_program(request):
    return request.param


@pytest.mark.parametrize(
    ("seconds", "save_steps", "first", "expected"),
    [
        (0, 0, 5, [1, 1, 1]),
        (0.9, 0, 6, [1, 1]),
        (3, 0, 0, [1, 3, 3, 1]),
        (100, 0, 0, [1, 7]),
        (100, 3, 0, [1, 2, 3, 2]),
        (2, 3, 1, [1, 1, 2, 1, 2]),
        (100, 1, 5, [1, 1, 1]),
        (100, 50, 0, [1, 7]),
    ],
)
def test_a_block_ends_in_time_where_a_checkpoint_is_due_and_with_the_epoch(
    seconds, save_steps, first, expected, one_program
):
    run = new_run(one_program, save_steps=save_steps, network="cnn")
    assert lengths(take_epoch(run, 1, seconds, first)) == expected


def test_no_length_of_blocks_changes_a_bit_or_compiles_anew(one_program):
    found = []
    with compiled() as names:
        for seconds in (0, 3, 100):
            run = new_run(one_program)
            blocks = [take_epoch(run, epoch, seconds) for epoch in range(2)]
            assert [sum(lengths(each)) for each in blocks] == [STEPS, STEPS]
            found.append([errors(each) for each in blocks] + leaves(run.state))
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
    if one_program:
        assert names.count("train_block") == 1


@pytest.mark.parametrize("task", ["patch", "sensor"])  # the latter with labels
def test_one_program_takes_the_steps_that_single_ones_are(task):
    if task == "patch":
        runs = [new_run(one_program) for one_program in (False, True)]
    else:
        runs = [in_blocks(Run(SensorConfig(**OPTIONS), WINDOWS_OF), one_program) for one_program in (False, True)]
    taken = [take_epoch(run, 1, 3) for run in runs]
    np.testing.assert_allclose(errors(taken[1]), errors(taken[0]), rtol=tolerance("step loss", "float32"))
    accuracies = [np.concatenate([scores.accuracy for scores in blocks]) for blocks in taken]
    np.testing.assert_array_equal(*accuracies)


def test_a_stream_is_taken_in_blocks_without_decoding_anything_twice(monkeypatch):
    whole = errors(take_epoch(new_run(False), 0, 3))
    monkeypatch.setattr("train.data.feed.RESIDENT_BYTES", 0)
    begun = []
    monkeypatch.setattr("train.data.feed.decode", lambda *given: begun.append(given) or decode(*given))
    with contextlib.closing(new_run(False)) as run:
        assert run.feed.streamed
        assert np.array_equal(errors(take_epoch(run, 0, 3)), whole)
        take_epoch(run, 1, 100)
    assert len(begun) == 1


@pytest.fixture
def fit_run(tmp_path, console):
    """Trains a run into a folder of its own."""

    def train(run, stop=None):
        folder = RunFolder(tmp_path / "run")
        folder.path.mkdir()
        checkpoints = Checkpoints(tmp_path / "checkpoints", 3)
        fit(run, folder, checkpoints, Bar(1, console), Stop() if stop is None else stop)

    return train


def logged(tmp_path):
    return [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("broken", [1, 2, 5, 8])
def test_a_non_finite_loss_within_a_block_is_named(broken, one_program, fit_run, tmp_path, monkeypatch):
    run = new_run(one_program, network="cnn")
    monkeypatch.setattr("train.loop.BLOCK", 1000)  # the second block is the rest of the epoch
    taken = run.train_epoch

    def train_epoch(epoch, *given):
        at = itertools.count(1)
        for scores in taken(epoch, *given):
            steps = np.array([next(at) for _ in scores.error])
            yield scores._replace(error=np.where((steps >= broken) & (epoch == 1), np.nan, scores.error))

    monkeypatch.setattr(run, "train_epoch", train_epoch)
    with pytest.raises(NonFiniteError, match=rf"^non-finite loss \(nan\) in epoch 2, step {broken}$"):
        fit_run(run)
    assert [line["step"] for line in logged(tmp_path)] == list(range(1, STEPS + broken))
    assert steps_in(tmp_path / "checkpoints") == [STEPS]


class During(Stop):
    """A signal comes while the run takes the block that has this step."""

    def __init__(self, run, step):
        super().__init__()
        self.run, self.step = run, step

    def __bool__(self):
        return self.run.place.step >= self.step


def test_a_stop_within_a_block_saves_at_its_end(one_program, fit_run, tmp_path, monkeypatch):
    run = new_run(one_program, network="cnn", save_steps=3)
    monkeypatch.setattr("train.loop.BLOCK", 1000)
    with pytest.raises(StoppedError):
        fit_run(run, During(run, 5))
    assert run.place.step == 6
    assert steps_in(tmp_path / "checkpoints") == [3, 6]
    assert [line["step"] for line in logged(tmp_path)] == list(range(1, 7))


def test_checkpoints_that_do_not_divide_an_epoch(one_program, fit_run, tmp_path, monkeypatch):
    run = new_run(one_program, network="cnn", save_steps=3, keep=9)
    monkeypatch.setattr("train.loop.BLOCK", 1000)
    monkeypatch.setattr(Checkpoints, "save", lambda self, state, place: saved.append((place.step, place.epochs)))
    saved = []
    fit_run(run)
    assert saved == [(3, 0), (6, 0), (8, 1), (11, 1), (14, 1), (16, 2)]


def test_a_slow_step_is_a_block_of_its_own():
    run = new_run(False, network="cnn")
    run.step_seconds = 30.0
    assert len(next(run.train_epoch(0, 0, 1.0)).error) == 1
    assert math.isfinite(run.step_seconds)
