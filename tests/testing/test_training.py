"""Training runs are compared step by step: losses, parameters and buffers, with dropout and over several batches."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

from flax_attn.layers import BatchNorm, Dropout, Linear
from flax_attn.testing import OptimizerPair, compare

RNG = np.random.default_rng(0)
X, Y = (RNG.standard_normal((11, 5)).astype(np.float32) for _ in range(2))
BEFORE_NORM = {"zero_gradients": {"train": ["fc.bias"]}}
ONCE = {"dtypes": ["float64"], "modes": ["eval"], **BEFORE_NORM}


class Theirs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(5, 7)
        self.bn = torch.nn.BatchNorm1d(7)
        self.dropout = torch.nn.Dropout(0.3)

    def forward(self, x):
        return self.dropout(torch.sin(self.bn(self.fc(x))))


class Ours(nnx.Module):
    def __init__(self, *, momentum=0.1):
        rngs = nnx.Rngs(0)
        self.fc = Linear(5, 7, rngs=rngs)
        self.bn = BatchNorm(7, momentum=momentum, rngs=rngs)
        self.dropout = Dropout(0.3, rngs=rngs)

    def __call__(self, x):
        return self.dropout(jnp.sin(self.bn(self.fc(x))))


def failed(report):
    return {row.quantity for row in report.failures}


def test_equal_modules_train_alike():
    report = compare(Ours(), Theirs(), X, batches=[(Y,)], steps=5, **ONCE)
    assert report.ok, str(report)
    trained = {(row.mode, row.quantity) for row in report.rows if row.mode != "eval"}
    assert trained == {
        (optimizer, quantity)
        for optimizer in ("sgd", "adam", "adamw")
        for quantity in ("loss", "trained parameter", "trained buffer")
    }
    assert {row.path for row in report.rows if row.quantity == "trained buffer"} == {
        "bn.running_mean",
        "bn.running_var",
    }


@pytest.mark.parametrize(
    ("flax", "torch_options"),
    [
        (optax.adamw(0.002, weight_decay=0.0), {"weight_decay": 0.05}),
        (optax.adamw(0.002, weight_decay=0.05, b2=0.99), {"weight_decay": 0.05}),
        (optax.adamw(0.002, weight_decay=0.05, eps=0.001), {"weight_decay": 0.05}),
    ],
    ids=["no weight decay", "another decay of the second moment", "another eps"],
)
def test_an_optimizer_that_differs_is_found(flax, torch_options):
    pair = OptimizerPair(flax, lambda parameters: torch.optim.AdamW(parameters, lr=0.002, **torch_options))
    report = compare(Ours(), Theirs(), X, steps=3, optimizers={"mine": pair}, **ONCE)
    assert {"loss", "trained parameter"} <= failed(report)
    assert {row.mode for row in report.failures} == {"mine"}
    assert report.finding is None  # every single call agrees


def test_a_wrong_momentum_shows_in_the_trained_buffers_alone():
    report = compare(Ours(momentum=0.2), Theirs(), X, steps=3, optimizers=["sgd"], **ONCE)
    assert failed(report) == {"trained buffer"}
    assert [row.path for row in report.failures] == ["bn.running_mean", "bn.running_var"]


def test_without_parameters_the_losses_are_compared():
    class Sine(nnx.Module):
        def __call__(self, x):
            return jnp.sin(x)

    class TheirSine(torch.nn.Module):
        def forward(self, x):
            return torch.sin(x)

    report = compare(Sine(), TheirSine(), X, steps=3, dtypes=["float64"], modes=["eval"])
    assert report.ok
    trained = [(row.mode, row.quantity) for row in report.rows if row.mode != "eval"]
    assert trained == [("sgd", "loss"), ("adam", "loss"), ("adamw", "loss")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps must be a whole number >= 0, got -1"),
        ({"steps": 2.5}, "steps must be a whole number >= 0, got 2.5"),
        ({"precision": "tf32"}, "precision must be one of 'highest', 'high', 'default', got 'tf32'"),
        ({"steps": 1, "optimizers": "adam"}, "optimizers must be a sequence of 'sgd', 'adam', 'adamw', got 'adam'"),
        ({"steps": 1, "optimizers": ["lion"]}, r"optimizers must be a sequence of .*, got \['lion'\]"),
        ({"steps": 1, "optimizers": {"mine": optax.sgd(0.1)}}, "optimizers must map names to OptimizerPair"),
        ({"batches": [(X, X)]}, r"batches\[0\] must have the arrays .*, input\[0\], got input\[0\], input\[1\]"),
        (
            {"batches": [(X,), (X.tolist(),)]},
            r"batches\[1\] must have the arrays and values of the call, input\[0\], got",
        ),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        compare(Ours(), Theirs(), X, **ONCE, **options)
