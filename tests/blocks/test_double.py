import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from fightingcv_attention.attention.A2Atttention import DoubleAttention as FightingcvDoubleAttention
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn.blocks.double import DoubleAttention
from flax_attn.testing import relative_error, tolerance

CLOSE = tolerance("input gradient", "float32")


def conv1x1(layer, x):
    return x @ np.asarray(layer.kernel[...])[0, 0] + np.asarray(layer.bias[...])


@pytest.mark.oracle("DoubleAttention")
@pytest.mark.parametrize("reconstruct", [True, False])
def test_against_numpy(reconstruct):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).standard_normal((2, 3, 5, 6))
        block = DoubleAttention(6, 4, 3, reconstruct, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out = np.asarray(block(jnp.asarray(x)))
        expected = np.zeros((2, 3, 5, 4))
        for image, features, gather, distribute in zip(
            expected, *(conv1x1(layer, x) for layer in (block.convA, block.convB, block.convV)), strict=True
        ):
            over_places = softmax(gather, axis=(0, 1))
            gathered = [(over_places[:, :, k, None] * features).sum((0, 1)) for k in range(3)]
            for i, j in np.ndindex(3, 5):
                weights = softmax(distribute[i, j])
                image[i, j] = sum(weight * feature for weight, feature in zip(weights, gathered, strict=True))
        if reconstruct:
            expected = conv1x1(block.conv_reconstruct, expected)
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_an_image_does_not_depend_on_the_others_as_in_fightingcv():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(np.float32)
    block = DoubleAttention(6, 4, 3, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(
        block(x)[:1],
        block(x[:1]),
        rtol=CLOSE,
        atol=CLOSE,
    )
    theirs = FightingcvDoubleAttention(6, 4, 3)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in flax_attn.to_torch(block).items()})
    maps = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    with torch.no_grad(), pytest.warns(UserWarning, match="Implicit dimension choice for softmax"):
        together, alone = theirs(maps), theirs(maps[:1])
    assert (together[:1] - alone).abs().max() > 0.1 * alone.abs().max()


def test_both_weights_are_given():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 5, 6)), jnp.float32)
    maps = flax_attn.attention_maps(DoubleAttention(6, 4, 3, rngs=nnx.Rngs(0)), x)
    assert maps["gather_weights"].shape == (2, 1, 3, 15)
    assert maps["distribute_weights"].shape == (2, 1, 15, 3)
    for weights in maps.values():
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=CLOSE)


@pytest.mark.parametrize(("sizes", "count"), [((32, 16, 8), 1600), ((64, 32, 32), 8352)])
def test_names_and_numbers_of_parameters_are_the_originals(sizes, count):
    state = flax_attn.to_torch(DoubleAttention(*sizes, rngs=nnx.Rngs(0)))
    assert sum(array.size for array in state.values()) == count
    assert {name.split(".")[0] for name in state} == {"convA", "convB", "convV", "conv_reconstruct"}


@pytest.mark.parametrize("name", ["in_channels", "c_m", "c_n"])
def test_bad_arguments(name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number >= 1, got 0"):
        DoubleAttention(**{"in_channels": 6, "c_m": 4, "c_n": 3, name: 0}, rngs=nnx.Rngs(0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=6), got (2, 3, 5, 7)")):
        DoubleAttention(6, 4, 3, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 5, 7)))
