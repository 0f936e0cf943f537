import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.fft import dctn
from scipy.special import expit

import flax_attn
from flax_attn import MultiSpectralAttention
from flax_attn.testing import relative_error, tolerance

CLOSE = tolerance("input gradient", "float32")

# The frequencies (u, v) that did best alone, the lowest and the worst, as far as they are checked here.
FREQUENCIES = {
    "top": [(0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0)],
    "low": [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 1), (1, 2)],
    "bot": [(6, 6), (1, 4), (3, 4), (3, 6), (2, 6), (4, 3), (1, 1), (2, 4)],
}


@pytest.mark.oracle("MultiSpectralAttention")
@pytest.mark.parametrize("order", FREQUENCIES)
@pytest.mark.parametrize(("h", "w"), [(7, 7), (13, 20)])
def test_against_scipys_transform(order, h, w):
    x = np.random.default_rng(0).standard_normal((2, h, w, 16))
    with jax.enable_x64(True):
        block = MultiSpectralAttention(16, h, w, 4, f"{order}8", param_dtype="float64", rngs=nnx.Rngs(0))
        out, weights = np.asarray(block(jnp.asarray(x))), flax_attn.to_torch(block)
    spectrum = dctn(x, type=2, axes=(1, 2), norm="ortho")
    parts = [spectrum[:, u * (h // 7), v * (w // 7), 2 * i : 2 * i + 2] for i, (u, v) in enumerate(FREQUENCIES[order])]
    z = np.concatenate(parts, axis=-1)
    gate = expit(np.maximum(z @ weights["fc.0.weight"].T, 0) @ weights["fc.2.weight"].T)
    assert relative_error(out, x * gate[:, None, None]) <= tolerance("output", "float64")


@pytest.mark.parametrize("order", FREQUENCIES)
def test_the_functions_are_orthonormal_so_that_no_frequency_comes_twice(order):
    block = MultiSpectralAttention(32, 7, 7, freq_sel_method=f"{order}32", rngs=nnx.Rngs(0))
    functions = np.moveaxis(np.asarray(block.dct_weight[...]), -1, 0).reshape(32, -1)
    np.testing.assert_allclose(np.linalg.norm(functions, axis=1), 1, rtol=CLOSE)
    np.testing.assert_allclose(functions @ functions.T, np.eye(32), atol=CLOSE)


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("order", FREQUENCIES)
def test_fewer_frequencies_are_the_first_of_the_most(order, count):
    most, fewer = (
        MultiSpectralAttention(32, 7, 7, freq_sel_method=f"{order}{n}", rngs=nnx.Rngs(0)).dct_weight[...]
        for n in (32, count)
    )
    np.testing.assert_array_equal(fewer, np.repeat(most[..., :count], 32 // count, axis=-1))


def test_another_map_is_averaged_to_the_size_of_the_transform():
    block = MultiSpectralAttention(16, 7, 7, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 7, 7, 16))
    gates = [flax_attn.attention_maps(block, one)["gate"] for one in (x, x.repeat(2, 1).repeat(3, 2))]
    assert gates[0].shape == (2, 1, 1, 16)
    np.testing.assert_allclose(gates[1], gates[0], rtol=CLOSE)


def test_the_transform_is_a_buffer_of_the_state_dict():
    block = MultiSpectralAttention(32, 7, 14, rngs=nnx.Rngs(0))
    entries = flax_attn.to_torch(block)
    assert {name: array.shape for name, array in entries.items()} == {
        "dct_layer.weight": (32, 7, 14),
        "fc.0.weight": (2, 32),
        "fc.2.weight": (32, 2),
    }
    assert sum(array.size for array in jax.tree.leaves(nnx.state(block, nnx.Param))) == 128
    other = {**entries, "dct_layer.weight": np.random.default_rng(0).random((32, 7, 14), np.float32)}
    flax_attn.from_torch(block, other)
    np.testing.assert_array_equal(flax_attn.to_torch(block)["dct_layer.weight"], other["dct_layer.weight"])
    np.testing.assert_array_equal(block.dct_weight[5, 11, 3], other["dct_layer.weight"][3, 5, 11])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channel": 0}, "channel must be a whole number >= 1, got 0"),
        ({"channel": 24}, "channel must be a multiple of 16, the number of frequencies, got 24"),
        ({"dct_h": 6}, "dct_h must be a whole number >= 7, got 6"),
        ({"dct_w": 1}, "dct_w must be a whole number >= 7, got 1"),
        ({"reduction": 64}, "reduction must be at most 32, the number of channels, to leave a hidden unit, got 64"),
        ({"freq_sel_method": "top3"}, "freq_sel_method must be one of 'top1', "),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MultiSpectralAttention(**{"channel": 32, "dct_h": 7, "dct_w": 7, **arguments}, rngs=nnx.Rngs(0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=16), got (2, 7, 7, 8)")):
        MultiSpectralAttention(16, 7, 7, rngs=nnx.Rngs(0))(jnp.ones((2, 7, 7, 8)))
