import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.squeeze_excite import EffectiveSqueezeExcite, SqueezeExcite
from flax_attn.testing import relative_error, tolerance

X = np.random.default_rng(0).standard_normal((2, 5, 7, 12))


def run(block, x):
    """The output in float64, and the layers' weights (in, out) and biases by name."""
    layers = {
        name: (np.asarray(layer.kernel[0, 0]), 0 if layer.bias is None else np.asarray(layer.bias[...]))
        for name, layer in nnx.iter_children(block)
    }
    return np.asarray(block(jnp.asarray(x))), layers


@pytest.mark.parametrize("bias", [True, False])
def test_squeeze_excite_against_numpy(bias):
    with jax.enable_x64(True):
        block = SqueezeExcite(12, rd_channels=3, bias=bias, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out, layers = run(block, X)
    (w1, b1), (w2, b2) = layers["fc1"], layers["fc2"]
    gate = expit(np.maximum(X.mean((1, 2)) @ w1 + b1, 0) @ w2 + b2)
    assert relative_error(out, X * gate[:, None, None]) <= tolerance("output", "float64")
    assert (block.fc1.bias is None) is (block.fc2.bias is None) is not bias


def test_effective_squeeze_excite_against_numpy():
    x = 99 * X  # so that some gates are 0 or 1
    with jax.enable_x64(True):
        block = EffectiveSqueezeExcite(12, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out, layers = run(block, x)
    weight, bias = layers["fc"]
    gate = np.clip(x.mean((1, 2)) @ weight + bias + 3, 0, 6) / 6
    assert {0.0, 1.0} & set(gate.ravel())
    assert relative_error(out, x * gate[:, None, None]) <= tolerance("output", "float64")


@pytest.mark.parametrize(
    ("channels", "arguments", "hidden"),
    [
        (64, {}, 8),  # not 64 // 16
        (200, {}, 16),
        (2048, {}, 128),
        (64, {"rd_divisor": 1}, 4),
        (64, {"rd_ratio": 1 / 4}, 16),
        (64, {"rd_channels": 5}, 5),
    ],
)
def test_the_width_of_the_hidden_layer(channels, arguments, hidden):
    block = jax.eval_shape(lambda: SqueezeExcite(channels, **arguments, rngs=nnx.Rngs(0)))
    assert block.fc1.kernel.shape == (1, 1, channels, hidden)
    assert block.fc2.kernel.shape == (1, 1, hidden, channels)


def shapes_of(block):
    return {name: array.shape for name, array in flax_attn.to_torch(block).items()}


def test_entries_are_those_of_timm():
    shapes = shapes_of(SqueezeExcite(32, rngs=nnx.Rngs(0)))
    assert shapes == {"fc1.weight": (8, 32, 1, 1), "fc1.bias": (8,), "fc2.weight": (32, 8, 1, 1), "fc2.bias": (32,)}
    shapes = {
        name: array.shape for name, array in flax_attn.to_torch(EffectiveSqueezeExcite(32, rngs=nnx.Rngs(0))).items()
    }
    assert shapes == {"fc.weight": (32, 32, 1, 1), "fc.bias": (32,)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rngs: SqueezeExcite(0, rngs=rngs), "channels must be a whole number >= 1, got 0"),
        (lambda rngs: SqueezeExcite(8, rd_channels=0, rngs=rngs), "rd_channels must be a whole number >= 1, got 0"),
        (lambda rngs: SqueezeExcite(8, rd_divisor=0, rngs=rngs), "rd_divisor must be a whole number >= 1, got 0"),
        (lambda rngs: SqueezeExcite(8, rd_ratio=0.0, rngs=rngs), "rd_ratio must be a finite number above 0, got 0.0"),
        (lambda rngs: SqueezeExcite(8, np.inf, rngs=rngs), "rd_ratio must be a finite number above 0, got inf"),
        (lambda rngs: EffectiveSqueezeExcite(0, rngs=rngs), "channels must be a whole number >= 1, got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(nnx.Rngs(0))


@pytest.mark.parametrize("block", [SqueezeExcite, EffectiveSqueezeExcite])
@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 3, 5, 7)])
def test_bad_shapes(block, shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=8), got {shape}")):
        block(8, rngs=nnx.Rngs(0))(jnp.ones(shape))
