import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.scse import SCSE
from flax_attn.testing import relative_error, tolerance


@pytest.mark.parametrize(("combine", "joined"), [("add", np.add), ("max", np.maximum)])
def test_against_numpy(combine, joined):
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 11))
    with jax.enable_x64(True):
        block = SCSE(11, 3, combine, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out = np.asarray(block(jnp.asarray(x)))
        entries = {name: np.squeeze(array) for name, array in flax_attn.to_torch(block).items()}
    assert entries["cSE.1.weight"].shape == (3, 11)  # 11 // 3 hidden units
    hidden = np.maximum(x.mean((1, 2)) @ entries["cSE.1.weight"].T + entries["cSE.1.bias"], 0)
    channel_gate = expit(hidden @ entries["cSE.3.weight"].T + entries["cSE.3.bias"])[:, None, None]
    spatial_gate = expit(x @ entries["sSE.0.weight"] + entries["sSE.0.bias"])[..., None]
    assert relative_error(out, joined(x * channel_gate, x * spatial_gate)) <= tolerance("output", "float64")


def test_as_many_parameters_as_published():
    for channels, reduction, count in ((64, 16, 645), (32, 2, 1105), (64, 2, 4257)):
        block = SCSE(channels, reduction, rngs=nnx.Rngs(0))
        assert sum(x.size for x in jax.tree.leaves(nnx.state(block, nnx.Param))) == count


def test_at_zero_the_maximum_shares_its_gradient():
    # Both sides of the maximum are 0 there, which PyTorch splits evenly, as JAX does.
    block = SCSE(4, 2, "max", rngs=nnx.Rngs(0))
    x = jnp.zeros((1, 2, 3, 4))
    gates = flax_attn.attention_maps(block, x)
    slope = jax.grad(lambda x: block(x).sum())(x)
    expected = (gates["channel_gate"] + gates["spatial_gate"]) / 2
    assert relative_error(np.asarray(slope), np.asarray(expected)) <= tolerance("input gradient", "float32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "in_channels must be a whole number >= 1, got 0"),
        ((8,), "reduction must be at most 8, the number of channels, to leave a hidden unit, got 16"),
        ((8, 0), "reduction must be a whole number >= 1, got 0"),
        ((8, 2, "sum"), "combine must be one of 'add', 'max', got 'sum'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SCSE(*arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 3, 5, 7)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=8), got {shape}")):
        SCSE(8, 2, rngs=nnx.Rngs(0))(jnp.ones(shape))
