import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit, softmax

import flax_attn
from flax_attn.blocks.polarized import ParallelPolarizedSelfAttention, SequentialPolarizedSelfAttention
from flax_attn.testing import relative_error, tolerance

BOTH = [ParallelPolarizedSelfAttention, SequentialPolarizedSelfAttention]


@pytest.mark.parametrize("cls", BOTH)
def test_against_numpy(cls):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 5, 7))
    with jax.enable_x64(True):
        block = cls(7, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        entries = {name: rng.standard_normal(array.shape) for name, array in flax_attn.to_torch(block).items()}
        flax_attn.from_torch(block, entries)
        out = np.asarray(block(jnp.asarray(x)))

    def layer(name, x):
        weight = entries[f"{name}.weight"]
        return x @ weight.reshape(len(weight), -1).T + entries[f"{name}.bias"]

    def channel_gate(x):
        weights = softmax(layer("ch_wq", x), axis=(1, 2))
        z = layer("ch_wz", (layer("ch_wv", x) * weights).sum((1, 2), keepdims=True))
        normed = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
        return expit(normed * entries["ln.weight"] + entries["ln.bias"])

    def spatial_gate(x):
        weights = softmax(layer("sp_wq", x).mean((1, 2), keepdims=True), axis=-1)
        return expit((layer("sp_wv", x) * weights).sum(-1, keepdims=True))

    by_channel = x * channel_gate(x)
    expected = by_channel * spatial_gate(by_channel)
    if cls is ParallelPolarizedSelfAttention:
        expected = by_channel + x * spatial_gate(x)
    assert relative_error(out, expected) <= tolerance("output", "float64")


@pytest.mark.parametrize(("channels", "count"), [(32, 2225), (64, 8545)])
@pytest.mark.parametrize("cls", BOTH)
def test_as_many_parameters_as_published(cls, channels, count):
    block = cls(channels, rngs=nnx.Rngs(0))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(block, nnx.Param))) == count


@pytest.mark.parametrize("cls", BOTH)
def test_large_scores_stay_finite(cls):
    x = 1e4 * jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 5, 8)), jnp.float32)
    block = cls(8, rngs=nnx.Rngs(0))
    assert np.isfinite(jax.grad(lambda x: block(x).sum())(x)).all()


@pytest.mark.parametrize("cls", BOTH)
def test_bad_input(cls):
    for channels in (0, 1):
        with pytest.raises(ValueError, match=f"channels must be a whole number >= 2, got {channels}"):
            cls(channels, rngs=nnx.Rngs(0))
    for shape in ((2, 3, 8), (2, 3, 5, 7)):
        with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=8), got {shape}")):
            cls(8, rngs=nnx.Rngs(0))(jnp.ones(shape))
