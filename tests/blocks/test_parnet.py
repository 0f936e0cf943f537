import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.signal import correlate2d
from scipy.special import expit

import flax_attn
from flax_attn import ParNetAttention
from flax_attn.testing import relative_error, tolerance


def normed(x, weights, name):
    mean, var, scale, bias = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def test_against_numpy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 5, 3))
    with jax.enable_x64(True):
        block = ParNetAttention(3, param_dtype="float64", rngs=nnx.Rngs(0))
        weights = {
            name: rng.random(array.shape) + 0.5 if "bn" in name or "identity" in name else array
            for name, array in flax_attn.to_torch(block).items()
            if "num_batches" not in name
        }
        flax_attn.from_torch(block, weights)
        block.eval()
        out = np.asarray(block(jnp.asarray(x[None])))[0]
    dense = [sum(correlate2d(x[..., i], one[i], "same") for i in range(3)) for one in weights["rbr_dense.conv.weight"]]
    skip = normed(x, weights, "rbr_identity")
    gate = expit(weights["se.cvsig.conv.weight"][..., 0, 0] @ skip.mean((0, 1)))
    total = normed(np.stack(dense, -1), weights, "rbr_dense.bn") + skip * gate
    total = total + normed(x @ weights["rbr_1x1.conv.weight"][..., 0, 0].T, weights, "rbr_1x1.bn")
    assert relative_error(out, total * expit(total)) <= tolerance("output", "float64")


@pytest.mark.parametrize(("arguments", "count"), [({}, 11456), ({"skip_norm": False, "bias": True}, 11488)])
def test_sizes_are_those_of_the_two_published_forms(arguments, count):
    block = nnx.eval_shape(lambda: ParNetAttention(32, **arguments, rngs=nnx.Rngs(0)))
    assert sum(array.size for array in jax.tree.leaves(nnx.state(block, nnx.Param))) == count


def test_the_gate_sees_the_skip_connection():
    """With BatchNorm before it, the scale of a map does not matter while training."""
    x = jax.random.normal(jax.random.key(0), (4, 3, 5, 3))
    for skip_norm in (True, False):
        block = ParNetAttention(3, skip_norm, rngs=nnx.Rngs(0))
        gates = [np.asarray(flax_attn.attention_maps(block, scale * x)["gate"]) for scale in (1, 100)]
        assert gates[0].shape == (4, 1, 1, 3)
        assert np.allclose(*gates, rtol=tolerance("training error", "float32")) is skip_norm


def test_errors():
    with pytest.raises(ValueError, match=re.escape("channel must be a whole number >= 1, got 0")):
        ParNetAttention(0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=3), got (2, 5, 7, 4)")):
        ParNetAttention(3, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 4)))
