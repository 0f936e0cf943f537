import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import expit

import flax_attn
from flax_attn.blocks.bam import BAM
from flax_attn.testing import relative_error, tolerance
from torch_ref.blocks.bam import BAM as Twin

CLOSE = tolerance("output", "float32")


def norm(x, entries, name):
    """BatchNorm in eval mode, over the last axis."""
    mean, var, scale, bias = (entries[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def dilated(x, weight, bias, dilation):
    """A 3x3 convolution of (b, h, w, c), place by place."""
    b, h, w, _ = x.shape
    out = np.tile(bias, (b, h, w, 1))
    for row in range(h):
        for column in range(w):
            for i in range(3):
                for j in range(3):
                    r, c = row + (i - 1) * dilation, column + (j - 1) * dilation
                    if 0 <= r < h and 0 <= c < w:
                        out[:, row, column] += x[:, r, c] @ weight[:, :, i, j].T
    return out


@pytest.mark.parametrize(("combine", "joined"), [("product", np.multiply), ("sum", np.add)])
def test_against_numpy(combine, joined):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 7, 6, 13))
    with jax.enable_x64(True):
        block = BAM(13, 6, num_layers=1, dilation_val=2, combine=combine, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        entries = {
            name: rng.uniform(0.5, 1.5, array.shape) if "running_var" in name else rng.standard_normal(array.shape)
            for name, array in flax_attn.to_torch(block).items()
        }
        flax_attn.from_torch(block, entries)
        block.eval()
        out = np.asarray(block(jnp.asarray(x)))
    c, s = "channel_att.gate_c.gate_c_", "spatial_att.gate_s.gate_s_"
    hidden = x.mean((1, 2)) @ entries[f"{c}fc_0.weight"].T + entries[f"{c}fc_0.bias"]
    hidden = np.maximum(norm(hidden, entries, f"{c}bn_1"), 0)
    channel = hidden @ entries[f"{c}fc_final.weight"].T + entries[f"{c}fc_final.bias"]
    places = x @ entries[f"{s}conv_reduce0.weight"][:, :, 0, 0].T + entries[f"{s}conv_reduce0.bias"]
    places = np.maximum(norm(places, entries, f"{s}bn_reduce0"), 0)
    for i in range(2):
        places = dilated(places, entries[f"{s}conv_di_{i}.weight"], entries[f"{s}conv_di_{i}.bias"], 2)
        places = np.maximum(norm(places, entries, f"{s}bn_di_{i}"), 0)
    spatial = places @ entries[f"{s}conv_final.weight"][:, :, 0, 0].T + entries[f"{s}conv_final.bias"]
    expected = x * (1 + expit(joined(channel[:, None, None], spatial)))
    assert relative_error(out, expected) <= tolerance("output", "float64")


@pytest.mark.parametrize(("channels", "count"), [(32, 323), (64, 1173)])
def test_as_many_parameters_as_published(channels, count):
    block = BAM(channels, rngs=nnx.Rngs(0))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(block, nnx.Param))) == count


def test_the_whole_of_a_wide_map_is_averaged():
    # The authors' window is square, so a change on the right would leave their channel branch as it is.
    block = BAM(16, 2, rngs=nnx.Rngs(0))
    block.eval()
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 29, 16)), jnp.float32)
    changed = x.at[:, :, 20:].set(3.0)
    assert (block(x)[:, :, 0] != block(changed)[:, :, 0]).any()  # too far away for the convolutions


def test_another_port_shrinks_the_map():
    from fightingcv_attention.attention.BAM import BAMBlock as Port

    theirs = Port(channel=16, reduction=4).eval()
    with pytest.raises(RuntimeError, match=r"expanded size of the tensor \(9\) must match"):
        theirs(torch.ones(1, 16, 9, 9))
    x = torch.randn(1, 16, 7, 7, generator=torch.Generator().manual_seed(0))
    gate = theirs(x) / x
    torch.testing.assert_close(gate, gate[:, :, :1, :1].expand_as(x), rtol=CLOSE, atol=0)


def test_initial_values_are_pytorchs():
    block = BAM(64, rngs=nnx.Rngs(0))
    theirs = Twin(64).state_dict()
    ours = flax_attn.to_torch(block)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        if "bn" in name:
            np.testing.assert_array_equal(array, theirs[name])
    kernel = ours["spatial_att.gate_s.gate_s_conv_di_0.weight"]
    assert 0 < np.abs(kernel).max() <= 1 / np.sqrt(4 * 9)


def test_a_batch_of_one_cannot_be_normalised_in_training():
    x = np.ones((1, 4, 5, 16), np.float32)
    with pytest.raises(ValueError, match="x must have more than 1 value per feature while training, got 1"):
        BAM(16, rngs=nnx.Rngs(0))(jnp.asarray(x))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        Twin(16)(torch.from_numpy(x).movedim(3, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "gate_channel must be a whole number >= 1, got 0"),
        ((8,), "reduction_ratio must be at most 8, the number of channels, to leave a hidden unit, got 16"),
        ((16, 16, 0), "num_layers must be a whole number >= 1, got 0"),
        ((16, 16, 1, -1), "dilation_conv_num must be a whole number >= 0, got -1"),
        ((16, 16, 1, 2, 0), "dilation_val must be a whole number >= 1, got 0"),
        ((16, 16, 1, 2, 4, "max"), "combine must be one of 'product', 'sum', got 'max'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BAM(*arguments, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(2, 3, 16), (2, 3, 5, 15)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must have shape (b, h, w, c=16), got {shape}")):
        BAM(16, rngs=nnx.Rngs(0))(jnp.ones(shape))
