import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.simam import SimAM
from flax_attn.testing import relative_error, tolerance
from torch_ref.blocks import simam as pt


def test_against_the_energy_of_the_paper():
    """Equation 5, the least energy of a neuron: e = 4 (var + lambda) / (d^2 + 2 var + 2 lambda); gate of 1 / e."""
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 3))
    squares = (x - x.mean((1, 2), keepdims=True)) ** 2
    var = x.var((1, 2), ddof=1, keepdims=True)
    energy = 4 * (var + 0.1) / (squares + 2 * var + 0.2)
    with jax.enable_x64(True):
        out = np.asarray(SimAM(0.1, rngs=nnx.Rngs(0))(jnp.asarray(x)))
    assert relative_error(out, x * expit(1 / energy)) <= tolerance("output", "float64")


def test_it_has_no_parameters():
    assert flax_attn.to_torch(SimAM(rngs=nnx.Rngs(0))) == {}


def test_a_constant_map_has_the_gate_of_a_half():
    gate = flax_attn.attention_maps(SimAM(rngs=nnx.Rngs(0)), jnp.full((2, 5, 7, 3), 1.5))["gate"]
    np.testing.assert_array_equal(gate, np.float32(expit(0.5)) * np.ones((2, 5, 7, 3), np.float32))


def test_one_pixel_is_refused_where_the_originals_give_nan():
    assert pt.SimAM()(torch.ones(2, 3, 1, 1)).isnan().all()
    with pytest.raises(ValueError, match=re.escape("x must have at least 2 pixels, got shape (2, 1, 1, 3)")):
        SimAM(rngs=nnx.Rngs(0))(jnp.ones((2, 1, 1, 3)))
    assert jnp.isfinite(SimAM(rngs=nnx.Rngs(0))(jnp.ones((2, 1, 2, 3)))).all()


@pytest.mark.parametrize("e_lambda", [-1e-4, np.nan, "0"])
def test_bad_arguments(e_lambda):
    with pytest.raises(ValueError, match=re.escape(f"e_lambda must be a finite number >= 0, got {e_lambda!r}")):
        SimAM(e_lambda, rngs=nnx.Rngs(0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c), got (5, 7, 3)")):
        SimAM(rngs=nnx.Rngs(0))(jnp.ones((5, 7, 3)))
