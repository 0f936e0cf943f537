import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import softmax

import flax_attn
from flax_attn.blocks.axial import AxialAttention
from flax_attn.testing import relative_error, tolerance


def weight(layer):
    return np.asarray(layer.kernel[...])


def attend(layers, tokens, heads, features):
    """One head after the other, among tokens (n, c)."""
    key_value = tokens @ weight(layers.to_kv)
    parts = []
    for head in range(heads):
        here = slice(head * features, (head + 1) * features)
        query = (tokens @ weight(layers.to_q))[:, here]
        key, value = key_value[:, here], key_value[:, heads * features :][:, here]
        parts.append(softmax(query @ key.T / np.sqrt(features), axis=-1) @ value)
    return np.concatenate(parts, axis=-1) @ weight(layers.to_out) + np.asarray(layers.to_out.bias[...])


def along_height(block, x, *sizes):
    columns = [[attend(block.axial_attentions[0].fn, image[:, j], *sizes) for j in range(x.shape[2])] for image in x]
    return np.array(columns).swapaxes(1, 2)


def along_width(block, x, *sizes):
    return np.array([[attend(block.axial_attentions[1].fn, row, *sizes) for row in image] for image in x])


@pytest.mark.parametrize("sum_axial_out", [True, False])
@pytest.mark.parametrize(("heads", "dim_heads"), [(3, None), (2, 5)])
def test_against_numpy(heads, dim_heads, sum_axial_out):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).standard_normal((2, 3, 5, 6))
        block = AxialAttention(6, heads, dim_heads, sum_axial_out, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out = np.asarray(block(jnp.asarray(x)))
        height = along_height(block, x, heads, dim_heads or 2)
        width = along_width(block, x if sum_axial_out else height, heads, dim_heads or 2)
    assert relative_error(out, height + width if sum_axial_out else width) <= tolerance("output", "float64")


def test_a_place_sees_its_row_and_column_alone_unless_the_axes_follow_each_other():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 5, 4)), jnp.float32)
    for summed in (True, False):
        block = AxialAttention(4, 2, sum_axial_out=summed, rngs=nnx.Rngs(0))
        seen = jax.grad(lambda x, block=block: (block(x)[0, 0, 0] ** 2).sum())(x).any(-1)[0]
        assert seen[0].all()
        assert seen[:, 0].all()
        assert seen[1:, 1:].any() != summed


def test_weights_are_those_of_columns_and_rows():
    maps = flax_attn.attention_maps(AxialAttention(4, 2, rngs=nnx.Rngs(0)), jnp.ones((2, 3, 5, 4)))
    assert {name: array.shape for name, array in maps.items()} == {
        "height_weights": (10, 2, 3, 3),
        "width_weights": (6, 2, 5, 5),
    }


@pytest.mark.parametrize(("dim", "heads", "count"), [(32, 4, 8256), (64, 8, 32896)])
def test_names_and_numbers_of_parameters_are_the_originals(dim, heads, count):
    state = flax_attn.to_torch(AxialAttention(dim, heads, rngs=nnx.Rngs(0)))
    assert sum(array.size for array in state.values()) == count
    assert list(state) == [
        f"axial_attentions.{axis}.fn.{name}"
        for axis in (0, 1)
        for name in ("to_q.weight", "to_kv.weight", "to_out.weight", "to_out.bias")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim must be a whole number >= 1, got 0"),
        ({"heads": 0}, "heads must be a whole number >= 1, got 0"),
        ({"heads": 3}, "heads must divide dim=8 unless dim_heads is given, got 3"),
        ({"dim_heads": 0}, "dim_heads must be a whole number >= 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        AxialAttention(**{"dim": 8, **arguments}, rngs=nnx.Rngs(0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=8), got (2, 3, 5, 7)")):
        AxialAttention(8, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 5, 7)))
