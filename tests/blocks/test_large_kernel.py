import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.signal import correlate2d
from scipy.special import erf

import flax_attn
from flax_attn import LargeKernelAttention, VANAttention
from flax_attn.testing import relative_error, tolerance

CLOSE = tolerance("input gradient", "float32")


def gated(x, weights, prefix=""):
    """Large kernel attention of a map (h, w, c), with the dilated kernel written out."""
    first, second = (weights[f"{prefix}{name}.weight"][:, 0] for name in ("conv0", "conv_spatial"))
    spread = np.zeros((len(second), 19, 19))
    spread[:, ::3, ::3] = second
    gate = x
    for name, kernels in (("conv0", first), ("conv_spatial", spread)):
        gate = np.stack([correlate2d(gate[..., i], kernel, "same") for i, kernel in enumerate(kernels)], -1)
        gate = gate + weights[f"{prefix}{name}.bias"]
    return x * mixed(gate, weights, f"{prefix}conv1")


def mixed(x, weights, name):
    return x @ weights[f"{name}.weight"][..., 0, 0].T + weights[f"{name}.bias"]


@pytest.mark.oracle("LargeKernelAttention", "VANAttention")
@pytest.mark.parametrize("cls", [LargeKernelAttention, VANAttention])
def test_against_numpy(cls):
    x = np.random.default_rng(0).standard_normal((13, 9, 3))
    with jax.enable_x64(True):
        block = cls(3, param_dtype="float64", rngs=nnx.Rngs(0))
        out, weights = np.asarray(block(jnp.asarray(x[None])))[0], flax_attn.to_torch(block)
    if cls is LargeKernelAttention:
        expected = gated(x, weights)
    else:
        hidden = mixed(x, weights, "proj_1")
        hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
        expected = x + mixed(gated(hidden, weights, "spatial_gating_unit."), weights, "proj_2")
    assert relative_error(out, expected) <= tolerance("output", "float64")


@pytest.mark.parametrize(("cls", "count"), [(LargeKernelAttention, 3488), (VANAttention, 5600)])
def test_sizes_are_the_authors(cls, count):
    block = nnx.eval_shape(lambda: cls(32, rngs=nnx.Rngs(0)))
    assert sum(array.size for array in jax.tree.leaves(nnx.state(block, nnx.Param))) == count


def test_the_gate_has_no_bounds():
    block = LargeKernelAttention(2, rngs=nnx.Rngs(0))
    x = 100 * jax.random.normal(jax.random.key(0), (1, 5, 7, 2))
    gate = flax_attn.attention_maps(block, x)["gate"]
    assert gate.shape == x.shape
    assert gate.min() < 0 < 1 < gate.max()
    np.testing.assert_allclose(block(x), x * gate, rtol=CLOSE)


@pytest.mark.parametrize(("cls", "name"), [(LargeKernelAttention, "dim"), (VANAttention, "d_model")])
def test_errors(cls, name):
    with pytest.raises(ValueError, match=re.escape(f"{name} must be a whole number >= 1, got 0")):
        cls(0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=3), got (2, 5, 7, 4)")):
        cls(3, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 4)))
