"""What rounding explains, and what it does not."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flax_attn import ops
from flax_attn.layers import BatchNorm, Linear
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
