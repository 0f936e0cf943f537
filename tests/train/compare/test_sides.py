"""Two trainings of one network: what they share, and that what they would not share shows."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch

from flax_attn.testing import tolerance
from train.compare import Options, settings, start, train_ours, train_twin
from train.data import Source
from train.tasks.patch import mean_error
from train.twin import Order, OurMasks, Twin, error_of, twin_of
from train.verdict import judge

from ..conftest import small_images

STEPS = 4  # over two epochs
OPTIONS = Options(network="multi_head", position="learned", batch_size=7, steps=STEPS, dtype="float64")


def quietly():
    """No progress."""


@pytest.fixture(scope="module")
def side():
    with settings("float64"):
        run, network = start(OPTIONS, Source("small", small_images(29, 20, 24)))
        yield SimpleNamespace(run=run, network=network, ours=train_ours(run, STEPS, quietly))


@pytest.fixture(scope="module")
def reference(side):
    return train_twin(twin(side), STEPS, quietly)


def twin(side, kind=Twin, masks=OurMasks, **options):
    return kind(side.run, side.network, masks=masks(side.network), **options)


def agree(ours, theirs):
    return judge("float64", "cpu", ours.losses, theirs.losses, []).holds


def test_losses_parameters_and_buffers_agree_in_float64(side, reference):
    assert side.ours.losses.dtype == np.float64
    assert len(side.ours.losses) == len(reference.losses) == STEPS
    assert agree(side.ours, reference)
    for name, expected in reference.state_dict.items():
        if "num_batches" not in name:
            found = side.ours.state_dict[name]
            assert np.max(np.abs(found - expected)) <= tolerance("trained parameter", "float64") * np.max(
                np.abs(expected)
            )


def test_every_parameter_has_been_trained(side):
    begun = twin_of(side.network, side.run.config, *side.run.source.shape).state_dict()
    trained = side.ours.state_dict.items()
    assert all(not np.array_equal(begun[name], array) for name, array in trained if "num_" not in name)


@pytest.mark.parametrize("run", [1, 2, 3, 4])
def test_another_order_of_sums_is_the_same_training(side, reference, run):
    other = train_twin(twin(side, order=Order(run)), STEPS, quietly)
    assert agree(other, reference)
    assert not np.array_equal(other.losses, reference.losses)


def test_two_hundred_steps_agree_in_float64():
    options = Options(network="cbam", batch_size=5, dtype="float64", steps=200)
    with settings("float64"):
        run, network = start(options, Source("small", small_images(23, 16, 20)))
        ours, theirs = train_ours(run, 200, quietly), train_twin(Twin(run, network), 200, quietly)
    assert len(np.unique(ours.losses)) == 200
    assert agree(ours, theirs)


def test_the_losses_are_one_formula():
    p, y = np.random.default_rng(3).random(11), np.arange(11) % 2
    with jax.enable_x64(True):
        ours = float(mean_error(jax.numpy.asarray(p), jax.numpy.asarray(y)))
    theirs = error_of(torch.tensor(p), torch.tensor(y)).item()
    assert abs(ours - theirs) < tolerance("output", "float64") * theirs


class OtherMasks(OurMasks):
    """Drops in other images of the batch."""

    def draw(self, *arguments):
        return super().draw(*arguments)[::-1].copy()


class NoDropout(OurMasks):
    def draw(self, path, rate, shape):
        return np.ones(shape, bool)


class OtherRate(Twin):
    def rates(self, epoch):
        return super().rates(epoch) * (1 + 1e-5)


class OtherEpsilon(Twin):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.optimizer = torch.optim.Adam(self.network.parameters(), eps=1.1e-8)


class WeightDecay(Twin):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.optimizer = torch.optim.AdamW(self.network.parameters())


class OtherLoss(Twin):
    @staticmethod
    def error_of(p, y):
        return error_of(p + 1e-8, y)


FAULTS = [{"masks": OtherMasks}, {"masks": NoDropout}, *({"kind": k} for k in (OtherRate, OtherEpsilon, WeightDecay))]


@pytest.mark.parametrize("fault", [*FAULTS, {"kind": OtherLoss}], ids=lambda fault: next(iter(fault.values())).__name__)
def test_what_the_twin_does_differently_shows(side, fault):
    assert not agree(side.ours, train_twin(twin(side, **fault), STEPS, quietly))


def test_a_dropout_that_ours_does_not_have_is_named(side):
    masks = OurMasks(side.network)
    for path, rate in (("attn1.other", 0.1), ("attn1.dropout", 0.2)):
        with pytest.raises(ValueError, match=f"our network must have a dropout '{path}' with rate {rate}"):
            masks.draw(path, rate, (7, 30, 32))
