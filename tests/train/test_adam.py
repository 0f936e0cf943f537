"""Our Adam against PyTorch's and optax's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from flax_attn.testing import relative_error, tolerance
from train.step import adam

RATE, STEPS = 0.01, 23


def gradients(dtype):
    return np.random.default_rng(0).standard_normal((STEPS, 101)).astype(dtype) * np.logspace(-6, 1, 101, dtype=dtype)


def flaxs(optimizer, dtype):
    """Where zeros have gone after each step."""
    with jax.enable_x64(dtype == "float64"):
        state, update, total, places = optimizer.init(jnp.zeros(101, dtype)), jax.jit(optimizer.update), 0.0, []
        for gradient in gradients(dtype):
            updates, state = update(jnp.asarray(gradient), state)
            assert updates.dtype == dtype
            total = total + np.asarray(updates, np.float64)
            places.append(total)
        return places


def torchs(dtype):
    parameter = torch.zeros(101, dtype=getattr(torch, dtype), requires_grad=True)
    optimizer, total, places = torch.optim.Adam([parameter], lr=RATE), 0.0, []
    for gradient in gradients(dtype):
        parameter.grad = torch.tensor(gradient)
        before = parameter.detach().clone().zero_()
        parameter.data.zero_()
        optimizer.step()
        total = total + (parameter.detach() - before).double().numpy()
        places.append(total)
    return places


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_step_is_pytorchs(dtype):
    for ours, theirs in zip(flaxs(adam(RATE), dtype), torchs(dtype), strict=True):
        assert relative_error(ours, theirs) <= tolerance("output", dtype)


def test_it_is_optaxs_in_float64_and_more_exact_in_float32():
    truth = torchs("float64")
    wide, narrow = flaxs(optax.adam(RATE), "float64"), flaxs(optax.adam(RATE), "float32")
    assert relative_error(wide[-1], truth[-1]) <= tolerance("output", "float64")
    assert relative_error(narrow[-1], truth[-1]) > tolerance("output", "float32")


@pytest.mark.parametrize("rate", [RATE, optax.linear_schedule(1.0, 0.5, 7)])
def test_its_state_is_optaxs(rate):
    ours, theirs = (optimizer.init(jnp.zeros(3)) for optimizer in (adam(rate), optax.adam(rate)))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
