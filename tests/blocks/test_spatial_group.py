import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.spatial_group import SpatialGroupEnhance
from flax_attn.testing import relative_error, tolerance
from torch_ref.blocks import spatial_group as pt

WEIGHT, BIAS = np.array([0.7, -1.3]), np.array([0.2, 0.5])


def by_hand(x):
    """The definition, group by group."""
    out = np.empty_like(x)
    for image, got in zip(x, out, strict=True):
        for group, (weight, bias) in enumerate(zip(WEIGHT, BIAS, strict=True)):
            part = image[:, :, 3 * group : 3 * group + 3]
            d = part @ part.mean((0, 1))
            d = (d - d.mean()) / (d.std(ddof=1) + 1e-5)
            got[:, :, 3 * group : 3 * group + 3] = part * expit(weight * d + bias)[..., None]
    return out


def make(**options):
    block = SpatialGroupEnhance(2, rngs=nnx.Rngs(0), **options)
    block.weight[...], block.bias[...] = WEIGHT, BIAS
    return block


def test_against_numpy():
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 6))
    with jax.enable_x64(True):
        out = np.asarray(make(param_dtype=jnp.float64)(jnp.asarray(x)))
    assert relative_error(out, by_hand(x)) <= tolerance("output", "float64")


def test_it_starts_as_the_authors_code_does():
    # A constant gate of sigmoid(1); fightingcv's starts with bias 0.
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 7, 6)), jnp.float32)
    block = SpatialGroupEnhance(2, rngs=nnx.Rngs(0))
    assert relative_error(np.asarray(block(x)), np.asarray(x) * expit(1)) <= tolerance("output", "float32")
    entries = flax_attn.to_torch(block)
    assert {name: array.tolist() for name, array in entries.items()} == {
        "weight": [[[[0]], [[0]]]],
        "bias": [[[[1]], [[1]]]],
    }


def test_a_constant_group_has_the_gradient_of_pytorch():
    # 32 pixels, so that the mean of equal numbers is exact and their deviation 0.
    x, weights = np.random.default_rng(0).standard_normal((2, 2, 4, 8, 6))
    x[0, ..., :3] = 1.5
    x[1, ..., 3:] = 0
    twin = pt.SpatialGroupEnhance(2).double()
    twin.load_state_dict({"weight": as_entry(WEIGHT), "bias": as_entry(BIAS)})
    leaf = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    twin(leaf).backward(torch.tensor(weights.transpose(0, 3, 1, 2)))
    with jax.enable_x64(True):
        block = make(param_dtype=jnp.float64)
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(block(x) * weights)))(jnp.asarray(x))
    expected = leaf.grad.numpy().transpose(0, 2, 3, 1)
    assert relative_error(np.asarray(gradient), expected) <= tolerance("input gradient", "float64")


def as_entry(values):
    return torch.tensor(values)[None, :, None, None]


def test_one_pixel_is_refused_where_the_originals_give_nan():
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert pt.SpatialGroupEnhance(2)(torch.ones(2, 6, 1, 1)).isnan().all()
    with pytest.raises(ValueError, match=re.escape("x must have at least 2 pixels, got shape (2, 1, 1, 6)")):
        make()(jnp.ones((2, 1, 1, 6)))


def test_bad_arguments():
    with pytest.raises(ValueError, match=re.escape("groups must be a whole number >= 1, got 0")):
        SpatialGroupEnhance(0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape("groups must divide the 7 channels of x, got 2")):
        make()(jnp.ones((2, 5, 3, 7)))
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c), got (5, 7, 6)")):
        make()(jnp.ones((5, 7, 6)))
