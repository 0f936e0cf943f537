"""The criterion, on curves made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from flax_attn.testing import tolerance
from train import verdict as criterion
from train.verdict import FIRST, band_of, differences, share_within

STEPS = 37
REFERENCE = np.linspace(0.7, 0.3, STEPS)
LIMITS = {dtype: tolerance("step loss", dtype) for dtype in ("float64", "float32")}


def judge(*arguments):
    return SimpleNamespace(**criterion.judge(*arguments)["verdict"])


def off_by(relative, at=slice(None)):
    losses = REFERENCE.copy()
    losses[at] *= 1 + relative
    return losses


def test_the_limits_are_those_that_were_set():
    assert LIMITS == {"float64": 10.0**-8, "float32": 10.0**-5}
    assert FIRST == 10


@pytest.mark.parametrize("step", [0, 9, 10, STEPS - 1])
def test_in_float64_every_step_is_held_to_the_tolerance(step):
    assert judge("float64", "cpu", off_by(LIMITS["float64"] / 2, step), REFERENCE).holds
    assert not judge("float64", "cpu", off_by(LIMITS["float64"] * 2, step), REFERENCE).holds


def test_in_float64_a_wide_band_excuses_nothing():
    others = [off_by(0.1), off_by(-0.1)]
    verdict = judge("float64", "cpu", off_by(0.01), REFERENCE, *others)
    assert verdict.share_within_band == 1
    assert not verdict.holds


@pytest.mark.parametrize(("step", "held"), [(0, True), (9, True), (10, False), (STEPS - 1, False)])
def test_in_float32_the_first_ten_steps_are_held_to_the_tolerance(step, held):
    others = [off_by(0.1), off_by(-0.1)]
    assert judge("float32", "cpu", off_by(LIMITS["float32"] / 2, step), REFERENCE, *others).holds
    assert judge("float32", "cpu", off_by(LIMITS["float32"] * 2, step), REFERENCE, *others).holds != held


def test_later_steps_may_leave_the_band_as_often_as_one_more_pytorch_run_would():
    others = [off_by(1e-6), off_by(-2e-6)]  # R = 2: a third of the 27 later steps, 9
    for outside, holds in ((9, True), (10, False)):
        verdict = judge("float32", "cpu", off_by(3e-6, slice(STEPS - outside, None)), REFERENCE, *others)
        assert verdict.share_within_band == (27 - outside) / 27
        assert verdict.share_wanted == 2 / 3
        assert verdict.holds == holds


def test_the_band_reaches_as_far_as_any_run_has_been():
    assert band_of([np.array([1, 5, 2, 0]), np.array([2, 1, 1, 7])]).tolist() == [2, 5, 5, 7]


def test_pytorchs_own_runs_are_measured_by_one_another():
    verdict = judge("float32", "cpu", REFERENCE, REFERENCE, off_by(1e-6), off_by(2e-6), off_by(3e-6, slice(20, None)))
    assert verdict.share_of_each_pytorch_run == [1, 17 / 27, 10 / 27]
    assert judge("float32", "cpu", REFERENCE, REFERENCE, off_by(1e-6)).share_of_each_pytorch_run == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("dtype", "step"), [("float64", 3), ("float64", STEPS - 1), ("float32", 3)])
def test_a_loss_that_is_no_number_never_agrees(dtype, step, value):
    broken = off_by(value, slice(step, None))
    for reference in (broken, REFERENCE):
        assert not judge(dtype, "cpu", broken, reference, REFERENCE).holds


def test_a_later_loss_that_is_no_number_lies_outside_of_any_band():
    broken = off_by(np.nan, slice(20, None))
    for reference in (broken, REFERENCE):
        verdict = judge("float32", "cpu", broken, reference, off_by(0.1), off_by(0.1))
        assert verdict.share_within_band == 10 / 27
        assert not verdict.holds


def test_differences_are_relative_and_equal_losses_have_none():
    assert differences(np.array([0.0, 3.0, 1.0]), np.array([0.0, 2.0, -0.5])).tolist() == [0, 0.5, 3]
    assert differences(np.array([1.0]), np.array([0.0])).tolist() == [np.inf]


def test_a_run_without_later_steps_has_no_share():
    assert share_within(np.ones(FIRST), [np.ones(FIRST)]) is None
    assert judge("float32", "cpu", REFERENCE[:7], REFERENCE[:7], REFERENCE[:7]).holds
