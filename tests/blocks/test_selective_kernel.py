import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.signal import correlate2d
from scipy.special import softmax

import flax_attn
from flax_attn import SelectiveKernel
from flax_attn.testing import relative_error, tolerance

CLOSE = tolerance("input gradient", "float32")


def shapes(block):
    return {name: array.shape for name, array in flax_attn.to_torch(block).items() if array.ndim}


def count(block):
    return sum(array.size for array in jax.tree.leaves(nnx.state(block, nnx.Param)))


def convolved(x, weight, dilation):
    """A map (h, w, c) under kernels (out, in, k, k), which are spread out with zeros between their elements."""
    spread = np.kron(weight, np.eye(1, dilation**2).reshape(dilation, dilation))
    end = dilation * (weight.shape[-1] - 1) + 1
    return np.stack(
        [sum(correlate2d(x[..., i], one[i, :end, :end], "same") for i in range(x.shape[-1])) for one in spread], -1
    )


def test_against_numpy():
    with jax.enable_x64(True):
        block = SelectiveKernel(
            4, 6, (3, 5, 7), rd_channels=5, split_input=False, param_dtype="float64", rngs=nnx.Rngs(0)
        )
        block.eval()
        x = np.random.default_rng(0).standard_normal((8, 9, 4))
        out = np.asarray(block(jnp.asarray(x[None])))[0]
        weights = flax_attn.to_torch(block)
    one = (1 + 1e-5) ** -0.5  # of a BatchNorm that has seen nothing
    maps = [np.maximum(convolved(x, weights[f"paths.{i}.conv.weight"], i + 1) * one, 0) for i in range(3)]
    hidden = np.maximum(weights["attn.fc_reduce.weight"][..., 0, 0] @ sum(maps).mean((0, 1)) * one, 0)
    shares = softmax((weights["attn.fc_select.weight"][..., 0, 0] @ hidden).reshape(3, 6), axis=0)
    expected = sum(share * one for share, one in zip(shares, maps, strict=True))
    assert relative_error(out, expected) <= tolerance("output", "float64")


def test_names_and_sizes_are_timms():
    block = nnx.eval_shape(lambda: SelectiveKernel(32, rngs=nnx.Rngs(0)))
    assert count(block) == 10128
    assert count(nnx.eval_shape(lambda: SelectiveKernel(32, split_input=False, rngs=nnx.Rngs(0)))) == 19344
    block = SelectiveKernel(4, 6, rngs=nnx.Rngs(0))
    assert {name: shape for name, shape in shapes(block).items() if "bn" not in name} == {
        "paths.0.conv.weight": (6, 2, 3, 3),
        "paths.1.conv.weight": (6, 2, 3, 3),
        "attn.fc_reduce.weight": (8, 6, 1, 1),
        "attn.fc_select.weight": (12, 8, 1, 1),
    }


def test_each_kernel_sees_its_part_of_the_channels():
    block = SelectiveKernel(4, rngs=nnx.Rngs(0))
    x = jnp.ones((2, 3, 5, 4))
    seen = [path(x[..., 2 * i : 2 * i + 2]) for i, path in enumerate(block.paths)]
    weights = flax_attn.attention_maps(block, x)["weights"]
    assert weights.shape == (2, 2, 4)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=CLOSE)
    expected = sum(part * weights[:, i, None, None] for i, part in enumerate(seen))
    np.testing.assert_allclose(block(x), expected, rtol=CLOSE)


def test_one_size_stands_for_two_kernels_and_the_stride_halves_the_map():
    block = SelectiveKernel(4, kernel_size=5, stride=2, rngs=nnx.Rngs(0))
    assert [path.conv.kernel_dilation for path in block.paths] == [(2, 2), (2, 2)]
    assert block(jnp.ones((2, 5, 8, 4))).shape == (2, 3, 4, 4)


def test_fightingcvs_has_no_norm_behind_the_reduction():
    from fightingcv_attention.attention.SKAttention import SKAttention as Port

    names = [name for name, _ in Port(8, kernels=[3, 5]).named_parameters()]
    fused = [name for name in names if not name.startswith("convs.")]
    assert fused == [f"{layer}.{entry}" for layer in ("fc", "fcs.0", "fcs.1") for entry in ("weight", "bias")]
    assert "convs.0.conv.bias" in names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number >= 1, got 0"),
        ({"out_channels": 0}, "out_channels must be a whole number >= 1, got 0"),
        ({"rd_ratio": 0}, "rd_ratio must be a finite number above 0, got 0"),
        ({"rd_channels": 0}, "rd_channels must be a whole number >= 1, got 0"),
        ({"kernel_size": (3, 4)}, "kernel_size must be odd and at least 3, or a sequence of such, got (3, 4)"),
        ({"kernel_size": 1}, "kernel_size must be odd and at least 3, or a sequence of such, got 1"),
        ({"kernel_size": ()}, "kernel_size must be odd and at least 3, or a sequence of such, got ()"),
        ({"kernel_size": (3, 5, 7)}, "in_channels must be divisible by the 3 kernels that split them, got 4"),
        ({"groups": 4}, "groups must divide 2 and 4 channels, got 4"),
        ({"stride": 0}, "stride must be a whole number >= 1"),
        ({"rd_divisor": 0}, "rd_divisor must be a whole number >= 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SelectiveKernel(**{"in_channels": 4, **arguments}, rngs=nnx.Rngs(0))


def test_bad_shapes():
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=4), got (2, 3, 5, 6)")):
        SelectiveKernel(4, rngs=nnx.Rngs(0))(jnp.ones((2, 3, 5, 6)))
