import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.coordinate import CoordinateAttention
from flax_attn.testing import relative_error, tolerance


@pytest.mark.parametrize("options", [{}, {"rd_channels": 3, "bias": False, "has_skip": True}])
def test_against_numpy(options):
    """In train mode, where the statistics are those of rows and columns together."""
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7))
    with jax.enable_x64(True):
        block = CoordinateAttention(7, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out = np.asarray(block(jnp.asarray(x)))
        entries = {name: np.squeeze(array) for name, array in flax_attn.to_torch(block).items()}

    def layer(name, places):
        return places @ entries[f"{name}.weight"].T + entries.get(f"{name}.bias", 0)

    places = np.concatenate([x.mean(2), x.mean(1)], axis=1)  # rows, then columns
    hidden = layer("conv1", places)
    normed = (hidden - hidden.mean((0, 1))) / np.sqrt(hidden.var((0, 1)) + 1e-5)
    active = normed * np.clip(normed + 3, 0, 6) / 6
    height_gate = expit(layer("conv_h", active[:, :3]))[:, :, None]
    width_gate = expit(layer("conv_w", active[:, 3:]))[:, None]
    expected = x * height_gate * width_gate + (x if options else 0)
    assert relative_error(out, expected) <= tolerance("output", "float64")
    spread = hidden.var((0, 1), ddof=1)
    assert relative_error(entries["bn1.running_var"], 0.9 + 0.1 * spread) <= tolerance("buffer", "float64")


@pytest.mark.parametrize(
    ("arguments", "width", "count"),
    [
        ({"channels": 32}, 8, 856),
        ({"channels": 64}, 8, 1688),
        ({"channels": 512}, 16, 25648),
        ({"channels": 32, "rd_channels": 8, "bias": False}, 8, 784),
    ],
)
def test_the_hidden_width_and_as_many_parameters_as_published(arguments, width, count):
    block = CoordinateAttention(**arguments, rngs=nnx.Rngs(0))
    assert block.conv1.kernel.shape[-1] == width
    assert sum(x.size for x in jax.tree.leaves(nnx.state(block, nnx.Param))) == count


def test_a_map_of_one_place():
    # A row and a column are two values, which is enough for BatchNorm.
    x = jnp.ones((1, 1, 1, 8))
    assert np.isfinite(CoordinateAttention(8, rngs=nnx.Rngs(0))(x)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels must be a whole number >= 1, got 0"),
        ((8, 0), "reduction must be a whole number >= 1, got 0"),
        ((8, 2, 0), "rd_channels must be a whole number >= 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CoordinateAttention(*arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 3, 5, 7)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=8), got {shape}")):
        CoordinateAttention(8, rngs=nnx.Rngs(0))(jnp.ones(shape))
