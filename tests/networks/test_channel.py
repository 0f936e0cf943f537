import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

from flax_attn.networks import channel as fx
from flax_attn.testing import relative_error, tolerance

OUTPUT = tolerance("output", "float64")


def test_against_numpy():
    x = np.random.default_rng(0).standard_normal((3, 5, 7, 17))
    with jax.enable_x64(True):
        network = fx.ChannelAttentionClassifier(17, 11, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        logits, attended = (np.asarray(result) for result in network(jnp.asarray(x)))
        gate = network.attention.channel_attention
        w1, w2 = (np.asarray(layer.kernel[...])[0, 0] for layer in (gate.fc1, gate.fc2))
        kernel, bias = np.asarray(network.fc.kernel[...]), np.asarray(network.fc.bias[...])
    expected = expit(sum(np.maximum(pooled @ w1, 0) @ w2 for pooled in (x.mean((1, 2)), x.max((1, 2)))))
    expected = x * expected[:, None, None]
    assert relative_error(attended, expected) <= OUTPUT
    assert relative_error(logits, expected.mean((1, 2)) @ kernel + bias) <= OUTPUT


def test_shapes_of_the_tutorials_run():
    # Arrays of (40, 50, 30), 14 classes.
    def call(x):
        return fx.ChannelAttentionClassifier(40, 14, rngs=nnx.Rngs(0))(x)

    logits, attended = jax.eval_shape(call, jnp.ones((30, 50, 30, 40)))
    assert (logits.shape, attended.shape) == ((30, 14), (30, 50, 30, 40))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((17, 0), "category must be a whole number >= 1, got 0"),
        ((0, 5), "in_planes must be a whole number >= 1, got 0"),
        ((13, 5), "ratio must be at most 13, the number of channels, to leave a hidden unit, got 16"),
        ((13, 5, 0), "ratio must be a whole number >= 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fx.ChannelAttentionClassifier(*arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(5, 7, 17), (2, 17, 5, 7), (2, 5, 7, 13)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=17), got {shape}")):
        jax.eval_shape(lambda x: fx.ChannelAttentionClassifier(17, 5, rngs=nnx.Rngs(0))(x), jnp.ones(shape))
