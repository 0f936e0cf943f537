import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn.blocks.non_local import NonLocalAttention
from flax_attn.testing import relative_error, tolerance


def conv1x1(layer, x):
    return x @ np.asarray(layer.kernel[...])[0, 0] + np.asarray(layer.bias[...])


def largest_of_four(x):
    """The maximum of each 2x2 places; what is left over at the edges is dropped."""
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    return np.array(
        [
            [[x[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1)) for j in range(columns)] for i in range(rows)]
            for b in range(len(x))
        ]
    )


@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.parametrize(("scale", "factor"), [(None, 6**-0.5), (1.0, 1.0), (0.3, 0.3)])
def test_against_numpy(scale, factor, sub_sample):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        block = NonLocalAttention(
            6, rd_channels=4, scale=scale, sub_sample=sub_sample, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        block.norm.scale[...], block.norm.mean[...], block.norm.var[...] = rng.uniform(0.5, 2, (3, 6))
        block.p.bias[...], block.g.bias[...], block.z.bias[...] = (rng.standard_normal(n) for n in (4, 4, 6))
        block.eval()
        x = rng.standard_normal((2, 3, 5, 6))
        out = np.asarray(block(jnp.asarray(x)))
        query, key, value = (conv1x1(layer, x) for layer in (block.t, block.p, block.g))
        if sub_sample:
            key, value = largest_of_four(key), largest_of_four(value)
        query, key, value = (one.reshape(2, -1, 4) for one in (query, key, value))
        weights = softmax(factor * query @ key.swapaxes(1, 2), axis=-1)
        z = conv1x1(block.z, (weights @ value).reshape(2, 3, 5, 4))
        norm = (z - block.norm.mean[...]) / np.sqrt(block.norm.var[...] + 1e-5) * block.norm.scale[...]
    assert relative_error(out, x + np.asarray(norm)) <= tolerance("output", "float64")


def test_it_starts_as_the_identity():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 5, 8)), jnp.float32)
    block = NonLocalAttention(8, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(block(x), x)
    # As in timm, normal numbers of variance 2 / fan_out.
    assert 0.9 < float(jnp.std(NonLocalAttention(256, rngs=nnx.Rngs(0)).t.kernel[...])) / (2 / 32) ** 0.5 < 1.1
    assert not any(layer.bias[...].any() for layer in (block.t, block.p, block.g, block.z))


@pytest.mark.parametrize(
    ("channels", "arguments", "count"), [(32, {}, 1144), (64, {}, 2264), (64, {"rd_ratio": 0.5}, 8480)]
)
def test_the_number_of_parameters_is_the_originals(channels, arguments, count):
    state = flax_attn.to_torch(NonLocalAttention(channels, **arguments, rngs=nnx.Rngs(0)))
    assert sum(array.size for name, array in state.items() if "running" not in name and "num" not in name) == count


def test_names_are_timms():
    state = flax_attn.to_torch(NonLocalAttention(32, rngs=nnx.Rngs(0)))
    assert {name.split(".")[0] for name in state} == {"t", "p", "g", "z", "norm"}
    assert state["t.weight"].shape == (8, 32, 1, 1)


def test_weights_are_not_held_unless_they_are_recorded():
    block = NonLocalAttention(4, rngs=nnx.Rngs(0))
    assert flax_attn.attention_maps(block, jnp.ones((1, 3, 5, 4)))["weights"].shape == (1, 1, 15, 15)
    block.eval()
    assert "1009,1009" not in str(jax.make_jaxpr(lambda x: block(x))(jnp.ones((1, 1009, 1, 4))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number >= 1, got 0"),
        ({"rd_channels": 0}, "rd_channels must be a whole number >= 1, got 0"),
        ({"rd_divisor": 0}, "rd_divisor must be a whole number >= 1, got 0"),
        ({"rd_ratio": 0}, "rd_ratio must be a finite number above 0, got 0"),
        ({"scale": 0.0}, "scale must be a finite number above 0, got 0.0"),
        ({"scale": float("inf")}, "scale must be a finite number above 0, got inf"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        NonLocalAttention(**{"in_channels": 8, **arguments}, rngs=nnx.Rngs(0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=8), got (2, 3, 5, 7)")):
        NonLocalAttention(8, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 5, 7)))
    for shape in ((2, 1, 5, 8), (2, 5, 1, 8)):
        message = f"x must be a map of at least 2x2 places with sub_sample=True, got {shape}"
        with pytest.raises(ValueError, match=re.escape(message)):
            NonLocalAttention(8, sub_sample=True, rngs=nnx.Rngs(0))(jnp.ones(shape))
