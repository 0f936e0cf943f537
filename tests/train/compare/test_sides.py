"""Two trainings of one network: what they share, and that what they would not share shows."""

from functools import partial

import jax
import numpy as np
import pytest
import torch

from flax_attn.testing import tolerance
from train.compare import twin
from train.compare.options import Options
from train.compare.ours import train_ours
from train.compare.problem import Problem, settings
from train.compare.result import make_result, to_dict
from train.compare.twin import OurMasks, train_twin
from train.compare.verdict import judge
from train.data import Source
from train.tasks.patch import TRAIN, draw_batch, mean_error, split_key
from train.twin import error_of, twin_of

from ..conftest import small_images

STEPS = 6
OPTIONS = Options(
    network="multi_head", position="learned", batch_size=7, steps=STEPS, dtype="float64", schedule="one_cycle"
)


def quietly(run):
    """No progress."""


@pytest.fixture(scope="module")
def problem():
    with settings(OPTIONS):
        yield Problem(OPTIONS, Source("small", small_images(29, 20, 24)))


@pytest.fixture(scope="module")
def ours(problem):
    return train_ours(problem, quietly)


@pytest.fixture(scope="module")
def reference(problem):
    return train_twin(problem, 0, quietly)


def agree(ours, theirs):
    return judge("float64", "cpu", ours.losses, theirs.losses, []).holds


def test_losses_parameters_and_buffers_agree_in_float64(problem, ours, reference):
    assert ours.losses.dtype == np.float64
    assert len(ours.losses) == len(reference.losses) == STEPS
    assert agree(ours, reference)
    result = make_result(problem, ours, reference, [])
    assert {"conv.c1a.weight", "attn1.w_qs.weight", "final.bias"} < set(result.parameters)
    assert set(result.buffers) == {f"conv.bn{n}a.running_{what}" for n in (1, 2) for what in ("mean", "var")}
    assert max(result.parameters.values()) <= tolerance("trained parameter", "float64")
    assert max(result.buffers.values()) <= tolerance("trained buffer", "float64")


def test_two_hundred_steps_agree_in_float64():
    options = Options(network="cbam", batch_size=5, dtype="float64")
    with settings(options):
        problem = Problem(options, Source("small", small_images(23, 16, 20)))
        ours, theirs = train_ours(problem, quietly), train_twin(problem, 0, quietly)
    assert len(ours.losses) == 200
    assert len(np.unique(ours.losses)) == 200
    assert agree(ours, theirs)


def test_every_parameter_has_been_trained(problem, ours):
    start = twin_of(problem.network, problem.options.config, *problem.size).state_dict()
    moved = [not np.array_equal(start[name], array) for name, array in ours.state_dict.items() if "num_" not in name]
    assert all(moved)


@pytest.mark.parametrize("run", [1, 2, 3, 4])
def test_another_order_of_sums_is_the_same_training(reference, problem, run):
    other = train_twin(problem, run, quietly)
    assert agree(other, reference)
    assert not np.array_equal(other.losses, reference.losses)


def test_batches_are_those_of_the_training_loop(problem):
    seen = [(epoch, np.asarray(fed.indices)) for epoch, fed in problem.batches()]
    assert [epoch for epoch, _ in seen] == [0, 0, 0, 1, 1, 1]  # 23 training images
    assert not np.array_equal(np.sort(seen[0][1]), np.sort(seen[3][1]))
    for (epoch, indices), (x, y) in zip(seen, problem.painted(), strict=True):
        with jax.enable_x64(False):
            images = np.asarray(next(problem.batches())[1].inputs)[indices]
            batch = draw_batch(images, indices, split_key(jax.random.key(0), TRAIN, epoch), "per_image")
        assert np.array_equal(x, batch.x)
        assert np.array_equal(y, batch.y)


def test_the_losses_are_one_formula():
    p, y = np.random.default_rng(3).random(11), np.arange(11) % 2
    with jax.enable_x64(True):
        ours = float(mean_error(jax.numpy.asarray(p), jax.numpy.asarray(y)))
    theirs = error_of(torch.tensor(p), torch.tensor(y)).item()
    assert abs(ours - theirs) < tolerance("output", "float64") * theirs


def other_masks(monkeypatch):
    draw = OurMasks.draw
    monkeypatch.setattr(OurMasks, "draw", lambda *arguments: draw(*arguments)[::-1].copy())


def no_dropout(monkeypatch):
    monkeypatch.setattr(OurMasks, "draw", lambda self, path, rate, shape: np.ones(shape, bool))


def other_epsilon(monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", partial(torch.optim.Adam, eps=1.1e-8))


def weight_decay(monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.AdamW)


def other_rate(monkeypatch):
    take_step = twin.take_step
    monkeypatch.setattr(twin, "take_step", lambda *given: take_step(*given[:-1], given[-1] * (1 + 1e-5)))


def other_loss(monkeypatch):
    monkeypatch.setattr("train.twin.TINY", 2e-8)


@pytest.mark.parametrize("fault", [other_masks, no_dropout, other_epsilon, weight_decay, other_rate, other_loss])
def test_what_the_twin_does_otherwise_shows(problem, ours, monkeypatch, fault):
    fault(monkeypatch)
    assert not agree(ours, train_twin(problem, 0, quietly))


def test_a_dropout_that_ours_does_not_have_is_named(problem):
    masks = OurMasks(problem.network)
    for path, rate in (("attn1.other", 0.1), ("attn1.dropout", 0.2)):
        with pytest.raises(ValueError, match=f"our network must have a dropout '{path}' with rate {rate}"):
            masks.draw(path, rate, (7, 30, 32))


def test_all_numbers_are_kept(problem, ours, reference):
    found = to_dict(make_result(problem, ours, reference, [reference]))
    assert found["options"]["network"] == "multi_head"
    assert found["loss"]["pytorch_in_other_orders"] == [reference.losses]
    assert len(found["loss"]["band"]) == len(found["seconds"]["ours"]["steps"]) == STEPS
    assert found["seconds"]["pytorch"]["median"] == np.median(reference.seconds[1:])
