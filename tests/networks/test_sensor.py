import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import expit

from flax_attn.networks import sensor as fx
from flax_attn.testing import relative_error, tolerance


def windows(*shape):
    return np.random.default_rng(0).standard_normal((*shape, 1))


def along_time(layer, x, stride):
    """A (3, 1) convolution with one zero before and one behind: three steps of time, one sensor."""
    steps = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0))), 3, 1)[:, ::stride]
    return np.einsum("btmci,ico->btmo", steps, np.asarray(layer.kernel[...])[:, 0]) + np.asarray(layer.bias[...])


def stage(conv, gate, norm, x):
    x = along_time(conv, x, 2)
    x = x * expit(along_time(gate.att_fc.layers[0], x.mean(-1, keepdims=True), 1))
    normal = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    return np.maximum(normal * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...]), 0)


def test_against_numpy():
    x = windows(3, 21, 5)
    with jax.enable_x64(True):
        network = fx.SpatialAttentionNeuralNetwork((5,), 7, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        layers = network.layer.layers
        for norm in layers[2::4]:
            norm.scale[...] = 1 + 0.3 * np.random.default_rng(1).standard_normal(norm.num_features)
            norm.bias[...] = np.random.default_rng(2).standard_normal(norm.num_features)
        out = np.asarray(network(jnp.asarray(x)))
        for index in range(0, 16, 4):
            x = stage(*layers[index : index + 3], x)
        # One number per channel and sensor, channels slowest.
        features = x.mean(1).transpose(0, 2, 1).reshape(3, 512 * 5)
        expected = features @ np.asarray(network.fc.kernel[...]) + np.asarray(network.fc.bias[...])
    assert relative_error(out, expected) <= tolerance("output", "float64")


def make(train_shape, category=7):
    return nnx.eval_shape(lambda: fx.SpatialAttentionNeuralNetwork(train_shape, category, rngs=nnx.Rngs(0)))


def test_the_widths_are_the_published_networks():
    layers = make((1000, 128, 9)).layer.layers
    assert [layer.kernel.shape for layer in layers[::4]] == [
        (3, 1, 1, 64),
        (3, 1, 64, 128),
        (3, 1, 128, 256),
        (3, 1, 256, 512),
    ]
    assert [norm.momentum for norm in layers[2::4]] == [0.1] * 4


def test_of_the_training_shape_only_the_last_entry_counts():
    shapes = [
        jax.tree.map(lambda leaf: leaf.shape, nnx.state(make(shape), nnx.Param))
        for shape in ((1000, 128, 9), (3, 9), (9,), (2, 11, 13, 9))
    ]
    assert all(jax.tree.leaves(other) == jax.tree.leaves(shapes[0]) for other in shapes)
    assert make((9, 11)).fc.kernel.shape == (512 * 11, 7)


@pytest.mark.parametrize("size", [(1, 5), (2, 5), (37, 5), (128, 7), (19, 3)])
def test_windows_of_any_length_and_number_of_sensors(size):
    # Other numbers of sensors are averaged to the one of the training shape.
    def call(x):
        return fx.SpatialAttentionNeuralNetwork((100, 5), 7, rngs=nnx.Rngs(0))(x)

    assert jax.eval_shape(call, jnp.ones((2, *size, 1))).shape == (2, 7)


@pytest.mark.parametrize(
    ("train_shape", "category", "message"),
    [
        ((100, 0), 7, "train_shape[-1] must be a whole number >= 1, got 0"),
        ((100, 2.5), 7, "train_shape[-1] must be a whole number >= 1, got 2.5"),
        ((100, 5), 0, "category must be a whole number >= 1, got 0"),
    ],
)
def test_bad_arguments(train_shape, category, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fx.SpatialAttentionNeuralNetwork(train_shape, category, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(37, 5, 1), (2, 1, 37, 5), (2, 37, 5, 3)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, series, modal, c=1), got {shape}")):
        jax.eval_shape(lambda x: fx.SpatialAttentionNeuralNetwork((100, 5), 7, rngs=nnx.Rngs(0))(x), jnp.ones(shape))
