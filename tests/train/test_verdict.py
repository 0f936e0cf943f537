"""The criterion, on curves made by hand."""

import numpy as np
import pytest

from flax_attn.testing import tolerance
from flax_attn.testing.tolerances import NOISE_FACTOR
from train.verdict import Trajectory, differences, findings, judge

STEPS = 37
REFERENCE = np.linspace(0.7, 0.3, STEPS)
LIMITS = {dtype: tolerance("step loss", dtype) for dtype in ("float64", "float32")}


def run(relative=0.0, at=slice(None), variance=1.0):
    """A run whose losses are off at some steps, and its running variance at the end."""
    losses = REFERENCE.copy()
    losses[at] *= 1 + relative
    state = {"weight": np.ones(3), "bn.running_var": np.full(3, variance), "bn.num_batches_tracked": np.array(7)}
    return Trajectory(losses, state)


def holds(dtype, ours, reference, *others):
    return judge(dtype, ours, reference, *others)["holds"]


def test_the_limits_are_those_that_were_set():
    assert LIMITS == {"float64": 10.0**-8, "float32": 10.0**-5}


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("step", [0, 9, 10, STEPS - 1])
def test_where_pytorch_has_no_spread_every_step_is_held_to_the_tolerance(dtype, step):
    assert holds(dtype, run(LIMITS[dtype] / 2, step), run(), run())
    assert not holds(dtype, run(LIMITS[dtype] * 2, step), run(), run())


def test_losses_and_buffers_are_both_judged():
    for ours, expected in ((run(), (True, True)), (run(0.01), (False, True)), (run(variance=1.01), (True, False))):
        found = judge("float64", ours, run())
        assert (found["losses"]["agree"], found["buffers"]["agree"], found["holds"]) == (*expected, all(expected))


@pytest.mark.parametrize("step", [0, 9, 10, STEPS - 1])
def test_in_float32_ours_may_go_some_times_as_far_as_pytorchs_own_runs(step):
    others = run(1e-3), run(-2e-3)
    assert holds("float32", run(2e-3 * NOISE_FACTOR * 0.99, step), run(), *others)
    assert not holds("float32", run(2e-3 * NOISE_FACTOR * 1.01, step), run(), *others)


def test_the_band_reaches_as_far_as_any_run_has_been():
    others = run(1e-3, 5), run(2e-3, 7)
    band = judge("float32", run(), run(), *others)["losses"]["band"]
    np.testing.assert_array_equal(band[:5], 0)
    assert band[5] == band[6] < band[7] == band[-1]
    assert not holds("float32", run(1e-3, 4), run(), *others)
    assert holds("float32", run(1e-3, 6), run(), *others)


@pytest.mark.parametrize("dtype", LIMITS)
def test_buffers_are_held_to_the_same(dtype):
    assert holds(dtype, run(variance=1 + LIMITS[dtype] / 2), run(), run())
    assert not holds(dtype, run(variance=1 + LIMITS[dtype] * 2), run(), run())
    assert holds("float32", run(variance=1.01), run(), run(variance=0.99))
    assert not holds("float32", run(variance=1.05), run(), run(variance=0.99))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("step", [3, STEPS - 1])
def test_a_loss_that_is_no_number_never_agrees(dtype, step, value):
    broken = run(value, slice(step, None))
    for reference in (broken, run()):
        for others in ([run()], [broken]):
            assert not judge(dtype, broken, reference, *others)["losses"]["agree"]
    found = judge(dtype, run(np.nan, step), run())
    assert findings(found)[0].startswith(f"losses do not agree: they differ by nan at step {step + 1}, ")
    assert findings(found)[1].startswith("buffers agree: they differ by 0, ")


def test_differences_are_relative_and_equal_losses_have_none():
    assert differences(np.array([0.0, 3.0, 1.0]), np.array([0.0, 2.0, -0.5])).tolist() == [0, 0.5, 3]
    assert differences(np.array([1.0]), np.array([0.0])).tolist() == [np.inf]
