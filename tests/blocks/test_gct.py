import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flax_attn
from flax_attn.blocks.gct import GatedChannelTransformation
from flax_attn.testing import relative_error, tolerance

C = 5
ALPHA, GAMMA, BETA = np.random.default_rng(1).standard_normal((3, C))


def make(*args, **options):
    block = GatedChannelTransformation(C, *args, rngs=nnx.Rngs(0), **options)
    block.alpha[...], block.gamma[...], block.beta[...] = ALPHA, GAMMA, BETA
    return block


def by_hand(x, epsilon, mode, after_relu):
    """The definition, channel by channel."""
    out = np.empty_like(x)
    for image, got in zip(x, out, strict=True):
        if mode == "l2":
            s = [a * np.sqrt(np.square(image[..., c]).sum() + epsilon) for c, a in enumerate(ALPHA)]
            size = np.sqrt(sum(value**2 for value in s) / C + epsilon)
        else:
            s = [a * (image[..., c] if after_relu else np.abs(image[..., c])).sum() for c, a in enumerate(ALPHA)]
            size = sum(abs(value) for value in s) / C + epsilon
        for c in range(C):
            got[..., c] = image[..., c] * (1 + np.tanh(GAMMA[c] * s[c] / size + BETA[c]))
    return out


@pytest.mark.oracle("GatedChannelTransformation")
@pytest.mark.parametrize(("mode", "after_relu"), [("l2", False), ("l2", True), ("l1", False), ("l1", True)])
def test_against_numpy(mode, after_relu):
    x = np.random.default_rng(0).standard_normal((2, 3, 7, C))
    with jax.enable_x64(True):
        out = np.asarray(make(0.1, mode, after_relu, param_dtype=jnp.float64)(jnp.asarray(x)))
    assert relative_error(out, by_hand(x, 0.1, mode, after_relu)) <= tolerance("output", "float64")


@pytest.mark.parametrize("mode", ["l2", "l1"])
def test_it_starts_as_the_identity(mode):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 7, C)), jnp.float32)
    block = GatedChannelTransformation(C, mode=mode, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(block(x), x)
    assert {name: (array.shape, set(array.ravel())) for name, array in flax_attn.to_torch(block).items()} == {
        "alpha": ((1, C, 1, 1), {1}),
        "gamma": ((1, C, 1, 1), {0}),
        "beta": ((1, C, 1, 1), {0}),
    }


@pytest.mark.parametrize("mode", ["l2", "l1"])
def test_the_gradient_of_a_black_map_is_the_gate(mode):
    block, x = make(mode=mode), jnp.zeros((2, 3, 7, C))
    gate = flax_attn.attention_maps(block, x)["gate"]
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(block(x)))(x), jnp.broadcast_to(gate, x.shape))


def test_the_norms_are_sums_so_a_larger_map_has_another_gate():
    block, x = make(epsilon=1.0), jnp.ones((1, 2, 3, C))
    gates = [flax_attn.attention_maps(block, jnp.tile(x, (1, times, 1, 1)))["gate"] for times in (1, 2)]
    assert gates[0].shape == (1, 1, 1, C)
    assert np.abs(gates[0] - gates[1]).max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_channels": 0}, "num_channels must be a whole number >= 1, got 0"),
        ({"num_channels": 3, "epsilon": 0.0}, "epsilon must be a finite number above 0, got 0.0"),
        ({"num_channels": 3, "mode": "l3"}, "mode must be one of 'l2', 'l1', got 'l3'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GatedChannelTransformation(**arguments, rngs=nnx.Rngs(0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=5), got (2, 3, 5, 7)")):
        make()(jnp.ones((2, 3, 5, 7)))
