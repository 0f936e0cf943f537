import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.gather_excite import GatherExcite
from flax_attn.testing import relative_error, tolerance
from torch_ref.originals import Original

X = np.random.default_rng(0).standard_normal((2, 7, 10, 5))


def windows(x, extent):
    """The mean over each window of 2e - 1 pixels around every e-th pixel, of what lies within the map."""
    h, w = x.shape[1:3]
    reach = extent - 1
    rows = [slice(max(i - reach, 0), i + reach + 1) for i in range(0, h, extent)]
    columns = [slice(max(j - reach, 0), j + reach + 1) for j in range(0, w, extent)]
    return np.stack([np.stack([x[:, row, column].mean((1, 2)) for column in columns], 1) for row in rows], 1)


def resized(gate, size):
    """Nearest neighbours, by fractions."""
    rows, columns = (np.arange(to) * length // to for to, length in zip(size, gate.shape[1:3], strict=True))
    return gate[:, rows][:, :, columns]


@pytest.mark.parametrize("use_mlp", [True, False])
@pytest.mark.parametrize("extent", [2, 4, 6])
def test_windows_against_numpy(extent, use_mlp):
    with jax.enable_x64(True):
        block = GatherExcite(
            5, extent=extent, use_mlp=use_mlp, rd_channels=3, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
        )
        out = np.asarray(block(jnp.asarray(X)))
    gathered = windows(X, extent)
    if use_mlp:
        for name, activation in (("fc1", lambda x: np.maximum(x, 0)), ("fc2", lambda x: x)):
            layer = block.mlp[name]
            gathered = activation(gathered @ np.asarray(layer.kernel[...])[0, 0] + np.asarray(layer.bias[...]))
    assert relative_error(out, X * resized(expit(gathered), (7, 10))) <= tolerance("output", "float64")


def test_without_an_extent_it_is_squeeze_and_excitation():
    block = GatherExcite(16, rd_channels=3, rngs=nnx.Rngs(0))
    other = flax_attn.SqueezeExcite(16, rd_channels=3, rngs=nnx.Rngs(1))
    flax_attn.from_torch(other, flax_attn.to_torch(block), rename={"mlp": ""})
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 7, 16)), jnp.float32)
    np.testing.assert_array_equal(block(x), other(x))


def test_convolutions_halve_the_map_once_per_power_of_two():
    block = GatherExcite(32, extra_params=True, extent=4, rngs=nnx.Rngs(0))
    entries = flax_attn.to_torch(block)
    parameters = sum(array.size for name, array in entries.items() if "running" not in name and "num" not in name)
    assert parameters == 866
    assert {
        name: array.shape for name, array in entries.items() if name.startswith("gather.") and "weight" in name
    } == {
        "gather.conv1.weight": (32, 1, 3, 3),
        "gather.norm1.weight": (32,),
        "gather.conv2.weight": (32, 1, 3, 3),
        "gather.norm2.weight": (32,),
    }
    gate = flax_attn.attention_maps(block, jnp.asarray(np.random.default_rng(0).standard_normal((1, 12, 8, 32))))[
        "gate"
    ]
    assert gate.shape == (1, 12, 8, 32)
    # Blocks of 4 x 4 with one value: 3 x 2 gathered pixels.
    np.testing.assert_array_equal(gate, np.asarray(gate[:, ::4, ::4]).repeat(4, 1).repeat(4, 2))


def test_it_has_as_many_parameters_as_timms_would():
    assert sum(array.size for array in flax_attn.to_torch(GatherExcite(64, rngs=nnx.Rngs(0))).values()) == 580


def test_timms_cannot_be_built_with_its_mlp():
    # Where it can, the originals may lose their repair.
    path = "timm.layers.gather_excite:GatherExcite"
    for arguments in ({}, {"extra_params": True, "extent": 2, "use_mlp": False}):
        with pytest.raises(TypeError):
            Original("GatherExcite", {}, path, {"channels": 32, **arguments}).load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "channels must be a whole number >= 1, got 0"),
        ({"channels": 8, "extent": -2}, "extent must be a whole number >= 0, got -2"),
        ({"channels": 8, "extent": 3}, "extent must be even, got 3"),
        (
            {"channels": 8, "extra_params": True},
            "extent must be a power of two from 2 on with extra_params, got 0",
        ),
        (
            {"channels": 8, "extra_params": True, "extent": 6},
            "extent must be a power of two from 2 on with extra_params, got 6",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GatherExcite(**arguments, rngs=nnx.Rngs(0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=8), got (2, 3, 5, 7)")):
        GatherExcite(8, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 5, 7)))
