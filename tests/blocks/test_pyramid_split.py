import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.signal import correlate2d
from scipy.special import expit, softmax

import flax_attn
from flax_attn import PyramidSplitAttention
from flax_attn.testing import relative_error, tolerance

SMALL = {"in_planes": 4, "planes": 16, "conv_groups": (1, 2, 4, 4), "reduction": 2}


def convolved(x, weight):
    """A map (h, w, c) under kernels (out, in / groups, k, k)."""
    per_group, groups = weight.shape[1], x.shape[-1] // weight.shape[1]
    outputs = []
    for place, kernels in enumerate(weight):
        first = place // (len(weight) // groups) * per_group
        outputs.append(sum(correlate2d(x[..., first + i], kernel, "same") for i, kernel in enumerate(kernels)))
    return np.stack(outputs, -1)


@pytest.mark.oracle("PyramidSplitAttention")
def test_against_numpy():
    x = np.random.default_rng(0).standard_normal((11, 9, 4))
    with jax.enable_x64(True):
        block = PyramidSplitAttention(**SMALL, param_dtype="float64", rngs=nnx.Rngs(0))
        out, weights = np.asarray(block(jnp.asarray(x[None])))[0], flax_attn.to_torch(block)
    maps = [convolved(x, weights[f"conv_{i}.weight"]) for i in (1, 2, 3, 4)]
    gates = []
    for one in maps:
        hidden = np.maximum(weights["se.fc1.weight"][..., 0, 0] @ one.mean((0, 1)) + weights["se.fc1.bias"], 0)
        gates.append(expit(weights["se.fc2.weight"][..., 0, 0] @ hidden + weights["se.fc2.bias"]))
    shares = softmax(np.stack(gates), axis=0)
    # The last kernel's channels come first.
    expected = np.concatenate([maps[i] * shares[i] for i in (3, 2, 1, 0)], axis=-1)
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_names_and_sizes_are_the_authors():
    block = nnx.eval_shape(lambda: PyramidSplitAttention(64, 64, rngs=nnx.Rngs(0)))
    assert sum(array.size for array in jax.tree.leaves(nnx.state(block, nnx.Param))) == 27121
    block = PyramidSplitAttention(**SMALL, rngs=nnx.Rngs(0))
    assert {name: array.shape for name, array in flax_attn.to_torch(block).items()} == {
        "conv_1.weight": (4, 4, 3, 3),
        "conv_2.weight": (4, 2, 5, 5),
        "conv_3.weight": (4, 1, 7, 7),
        "conv_4.weight": (4, 1, 9, 9),
        "se.fc1.weight": (2, 4, 1, 1),
        "se.fc1.bias": (2,),
        "se.fc2.weight": (4, 2, 1, 1),
        "se.fc2.bias": (4,),
    }


def test_another_port_has_no_parameters_and_overwrites_its_input():
    from fightingcv_attention.attention.PSA import PSA as Port

    theirs, x = Port(8, reduction=2), torch.ones(1, 8, 3, 3)
    assert list(theirs.parameters()) == list(theirs.state_dict()) == []
    with torch.no_grad():
        theirs(x)
    assert (x != 1).any()
    with pytest.raises(RuntimeError, match="in-place"):
        theirs(torch.ones(1, 8, 3, 3, requires_grad=True))


def test_weights_are_nearly_equal():
    """A softmax of values in (0, 1) cannot tell the kernels apart by more than a factor e."""
    x = 100 * jax.random.normal(jax.random.key(0), (2, 5, 7, 4))
    weights = flax_attn.attention_maps(PyramidSplitAttention(**SMALL, rngs=nnx.Rngs(0)), x)["weights"]
    assert weights.shape == (2, 4, 4)
    assert weights.max() <= np.e / (np.e + 3)


def test_the_stride_halves_the_map():
    assert PyramidSplitAttention(**SMALL, stride=2, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 8, 4))).shape == (2, 3, 4, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_planes": 0}, "in_planes must be a whole number >= 1, got 0"),
        ({"planes": 18}, "planes must be a multiple of 4, the number of kernels, got 18"),
        ({"conv_kernels": (3, 5, 7)}, "conv_kernels must be four odd numbers, got (3, 5, 7)"),
        ({"conv_kernels": (3, 5, 7, 8)}, "conv_kernels must be four odd numbers, got (3, 5, 7, 8)"),
        ({"conv_groups": (1, 2)}, "conv_groups must be four numbers, got (1, 2)"),
        ({"conv_groups": (1, 2, 4, 3)}, "groups must divide 4 and 4 channels, got 3"),
        ({"reduction": 8}, "reduction must be at most 4, the number of channels, to leave a hidden unit, got 8"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PyramidSplitAttention(**{**SMALL, **arguments}, rngs=nnx.Rngs(0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=4), got (2, 3, 5, 6)")):
        PyramidSplitAttention(**SMALL, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 5, 6)))
