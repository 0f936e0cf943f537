"""What rounding explains, and what it does not."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flax_attn import ops
from flax_attn.layers import BatchNorm, Linear
from flax_attn.testing import compare, tolerance
from flax_attn.testing.comparison import Comparison
from flax_attn.testing.inputs import take_apart
from flax_attn.testing.results import Objective
from flax_attn.testing.rounding import unexplained

TIED = np.array([[3.0, 1.0, 3.0, 2.0], [5.0, 5.0, 5.0, 0.0]], np.float32)
ONE, _ = take_apart([None])  # the signature of a call with one array
BOTH = {"train": frozenset(), "eval": frozenset()}


class TorchMax(torch.nn.Module):
    def forward(self, x):
        return x.max(-1, keepdim=True)[0]


class Calls(nnx.Module):
    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


def complaints(ours, theirs, x, mode="eval"):
    comparison = Comparison(ours, theirs, ONE, {}, {}, {}, None, None, BOTH, "highest", 0, "")
    shape = comparison.theirs("eval", "float64", "float64").output_shapes([x])["output"]
    cotangents = [np.random.default_rng(0).standard_normal(shape)]
    return unexplained(comparison, [x], Objective(cotangents), mode, "float64")


def test_a_tie_among_inputs_is_no_matter_of_rounding():
    assert complaints(Calls(lambda x: ops.max_first(x, -1)), TorchMax(), TIED) == []
    (told,) = complaints(Calls(lambda x: jnp.max(x, -1, keepdims=True)), TorchMax(), TIED)
    assert told.startswith("float64 eval input gradient input[0]: off by")


@pytest.mark.parametrize("wrong", [jnp.cos, lambda x: jnp.sin(x) * (1 + 2.0**-30), lambda x: jnp.sin(x)[:1]])
def test_another_function_is_not_explained(wrong):
    class Sine(torch.nn.Module):
        def forward(self, x):
            return torch.sin(x)

    assert complaints(Calls(jnp.sin), Sine(), TIED) == []
    if wrong(TIED).shape == TIED.shape:
        assert len(complaints(Calls(wrong), Sine(), TIED)) == 2
    else:
        with pytest.raises(ValueError, match="PyTorch's shape"):
            complaints(Calls(wrong), Sine(), TIED)


def test_nan_and_infinity_have_to_be_in_the_same_places():
    class Log(torch.nn.Module):
        def forward(self, x):
            return torch.log(x)

    x = np.array([1.0, 0.0, -1.0, np.nan], np.float32)
    assert complaints(Calls(jnp.log), Log(), x) == []
    told = complaints(Calls(lambda x: jnp.log(jnp.maximum(x, 1e-3))), Log(), x)
    assert told[0] == f"float64 eval output output: {np.log(1e-3)} at [1], expected -inf"


def test_the_remainder_of_a_large_sum_is_explained():
    # A constant has no variance: what a BatchNorm's scale gets for a gradient is rounding, and nothing of ours.
    twin = torch.nn.BatchNorm1d(3, momentum=0.1)
    x = np.full((7, 3), 0.1, np.float32)
    norm = BatchNorm(3, rngs=nnx.Rngs(0))
    comparison = Comparison(norm, twin, ONE, {}, {}, {}, None, None, BOTH, "highest", 0, "")
    objective = Objective([np.random.default_rng(0).standard_normal((7, 3))])
    assert unexplained(comparison, [x], objective, "train", "float64") == []
    other = Comparison(
        BatchNorm(3, eps=1e-3, rngs=nnx.Rngs(0)),
        twin,
        ONE,
        {},
        {},
        {},
        None,
        None,
        BOTH,
        "highest",
        0,
        "",
    )
    assert any("input gradient" in told for told in unexplained(other, [x], objective, "train", "float64"))


def test_missing_arrays_are_not_explained():
    # A bias on one side alone cannot be loaded by compare; here nothing checks that first.
    told = complaints(Linear(4, 2, rngs=nnx.Rngs(0)), torch.nn.Linear(4, 2, bias=False), TIED)
    assert "float64 eval parameter gradient bias: missing on one side" in told


class Sharp(nnx.Module):
    """Multiplies rounding errors by ``factor``, as many layers do."""

    def __init__(self, factor, wrong=lambda x: x):
        self.a, self.b = (Linear(4, 4, rngs=nnx.Rngs(0)) for _ in range(2))
        self.sine, self.wrong = Calls(lambda x: jnp.sin(factor * x)), wrong

    def __call__(self, x):
        return self.b(self.wrong(self.sine(self.a(x))))


class TorchSharp(torch.nn.Module):
    class Sine(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return torch.sin(self.factor * x)

    def __init__(self, factor):
        super().__init__()
        self.a, self.b, self.sine = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), self.Sine(factor)

    def forward(self, x):
        return self.b(self.sine(self.a(x)))


FACTORS = {"float64": 1e6, "float32": 1e3}
DIGITS = np.random.default_rng(0).standard_normal((5, 4))


@pytest.mark.parametrize("dtype", FACTORS)
def test_bounds_follow_the_rounding_of_pytorch(dtype):
    factor, options = FACTORS[dtype], {"dtypes": [dtype], "modes": ["eval"]}
    theirs = TorchSharp(factor)
    report = compare(Sharp(factor), theirs, DIGITS, **options)
    assert report.ok, str(report)
    wider = [row for row in report.rows if row.tolerance > tolerance(row.quantity, dtype)]
    assert "output" in {row.quantity for row in wider}
    # What the caller gives stays, and so do the bounds of the table.
    given = {("output", dtype): tolerance("output", dtype)}
    assert [row.quantity for row in compare(Sharp(factor), theirs, DIGITS, tolerances=given, **options).failures] == [
        "output"
    ]


def test_what_is_lost_in_rounding_is_said():
    report = compare(Sharp(1e16), TorchSharp(1e16), DIGITS, dtypes=["float64"], modes=["eval"])
    lost = [row for row in report.rows if row.note == "lost in rounding"]
    assert lost
    assert all(row.tolerance >= 1 for row in lost)
    assert f"{len(lost)} are lost in rounding" in str(report)


@pytest.mark.parametrize("dtype", FACTORS)
def test_wider_bounds_let_no_mistake_pass(dtype):
    factor = FACTORS[dtype] / 10
    ours = Sharp(factor, wrong=lambda x: x * (1 + 1000 * factor * np.finfo(dtype).eps))
    assert "output" in {
        row.quantity for row in compare(ours, TorchSharp(factor), DIGITS, dtypes=[dtype], modes=["eval"]).failures
    }


def test_training_runs_have_wider_bounds_likewise():
    options = {"dtypes": ["float64"], "modes": ["eval"], "steps": 5, "optimizers": ["adam"]}
    theirs = TorchSharp(1e7)
    report = compare(Sharp(1e7), theirs, DIGITS, **options)
    assert report.ok, str(report)
    assert any(row.tolerance > tolerance(row.quantity, "float64") for row in report.rows if row.mode == "adam")
    wrong = compare(Sharp(1e7, wrong=lambda x: 0.5 * x), theirs, DIGITS, **options)
    assert "trained parameter" in {row.quantity for row in wrong.failures}


def test_rounding_is_not_taken_for_the_first_difference():
    report = compare(Sharp(1e6, wrong=lambda x: 0.9 * x), TorchSharp(1e6), DIGITS, dtypes=["float64"], modes=["eval"])
    assert (report.finding.path, report.finding.given) == ("b", True)


def test_a_wrong_gradient_at_a_tie_behind_arithmetic_stays_wrong():
    class Tie(torch.nn.Module):
        def forward(self, x):
            return torch.sin(2 * x + 1).max(-1, keepdim=True)[0]

    options = {"dtypes": ["float64"], "modes": ["eval"]}
    assert compare(Calls(lambda x: ops.max_first(jnp.sin(2 * x + 1), -1)), Tie(), TIED[:, :3], **options).ok
    ours = Calls(lambda x: jnp.max(jnp.sin(2 * x + 1), -1, keepdims=True))
    assert [row.quantity for row in compare(ours, Tie(), TIED[:, :3], **options).failures] == ["input gradient"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"float32": 1e-3}, r"tolerances must map \(quantity, dtype\) to numbers, as \('output', 'float64'\)"),
        ([1e-3], "tolerances must map"),
        ({("output", "float16"): 1e-3}, "tolerances must map"),
        ({("output", "float32"): -1.0}, "tolerances must be numbers >= 0"),
        ({("output", "float32"): "small"}, "tolerances must be numbers >= 0"),
    ],
)
def test_bad_tolerances(given, message):
    with pytest.raises(ValueError, match=message):
        compare(Sharp(1.0), TorchSharp(1.0), DIGITS, tolerances=given)


class BeforeNorm(nnx.Module):
    def __init__(self, shift=0.0):
        self.fc, self.bn, self.shift = Linear(4, 3, rngs=nnx.Rngs(0)), BatchNorm(3, rngs=nnx.Rngs(0)), shift

    def __call__(self, x):
        return self.bn(self.fc(x)) + self.shift * self.fc.bias[...]


class TorchBeforeNorm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.bn = torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)

    def forward(self, x):
        return self.bn(self.fc(x))


@pytest.mark.parametrize("zero", [(), ["fc.bias"], {"train": ["fc.bias"]}])
def test_a_bias_before_a_norm_is_no_fault_in_either_mode(zero):
    dtypes = ["float64", "float32", "bfloat16"]
    report = compare(BeforeNorm(), TorchBeforeNorm(), DIGITS, zero_gradients=zero, dtypes=dtypes, steps=3)
    assert report.ok, str(report)
    notes = {row.mode: row.note for row in report.rows if row.path == "fc.bias"}
    assert notes["train"] == notes["adam"] == "zero by algebra"
    assert notes["eval"] == ""


def test_a_gradient_that_vanishes_on_one_side_alone_is_a_fault():
    report = compare(BeforeNorm(shift=1e-4), TorchBeforeNorm(), DIGITS, dtypes=["float64"], modes=["train"])
    assert ("parameter gradient", "fc.bias") in {(row.quantity, row.path) for row in report.failures}
