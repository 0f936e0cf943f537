import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.triplet import TripletAttention
from flax_attn.testing import relative_error, tolerance


def gate(x, axis, conv, bn):
    """The gate from the pools over ``axis``; rows and columns of the plane are the other axes, named in their order."""
    plane = np.stack([x.max(axis), x.mean(axis)], -1)
    b, rows, columns, _ = plane.shape
    padded = np.pad(plane, ((0, 0), (3, 3), (3, 3), (0, 0)))
    out = np.zeros((b, rows, columns))
    for i in range(7):
        for j in range(7):
            out += padded[:, i : i + rows, j : j + columns] @ conv[:, i, j]
    scale, bias, mean, var = bn
    return np.expand_dims(expit((out - mean) / np.sqrt(var + 1e-5) * scale + bias), axis)


@pytest.mark.parametrize("no_spatial", [False, True])
def test_against_numpy(no_spatial):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 11, 3))
    with jax.enable_x64(True):
        block = TripletAttention(no_spatial, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        entries = {name: rng.uniform(0.2, 0.7, array.shape) for name, array in flax_attn.to_torch(block).items()}
        flax_attn.from_torch(block, entries)
        block.eval()
        out = np.asarray(block(jnp.asarray(x)))

    def parts(name):
        bn = [entries[f"{name}.conv.bn.{part}"][0] for part in ("weight", "bias", "running_mean", "running_var")]
        return entries[f"{name}.conv.conv.weight"][0], bn

    # The authors' plane of cw has the channels as its rows, and so has ours of hc its rows as rows.
    kernel, bn = parts("cw")
    gates = [gate(x, 1, kernel.swapaxes(1, 2), bn), gate(x, 2, *parts("hc"))]
    if not no_spatial:
        gates.append(gate(x, 3, *parts("hw")))
    assert relative_error(out, x * sum(gates) / len(gates)) <= tolerance("output", "float64")


@pytest.mark.parametrize(("no_spatial", "count"), [(False, 300), (True, 200)])
def test_as_many_parameters_as_published(no_spatial, count):
    block = TripletAttention(no_spatial, rngs=nnx.Rngs(0))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(block, nnx.Param))) == count


def test_running_statistics_move_by_a_hundredth():
    block = TripletAttention(rngs=nnx.Rngs(0))
    block(jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 7, 3)), jnp.float32))
    for inner in (block.cw, block.hc, block.hw):
        assert 0 < abs(inner.conv.bn.var[...][0] - 1) <= 0.01
        assert inner.conv.bn.momentum == 0.01


def test_the_gates_are_recorded_along_the_axes_of_the_map():
    maps = flax_attn.attention_maps(TripletAttention(rngs=nnx.Rngs(0)), jnp.ones((2, 5, 7, 3)))
    assert {name: array.shape for name, array in maps.items()} == {
        "width_gate": (2, 1, 7, 3),
        "height_gate": (2, 5, 1, 3),
        "spatial_gate": (2, 5, 7, 1),
    }


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 3, 5, 7, 11)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c), got {shape}")):
        TripletAttention(rngs=nnx.Rngs(0))(jnp.ones(shape))
