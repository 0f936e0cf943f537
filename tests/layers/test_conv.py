"""Conv: PyTorch's arguments mean what they mean in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

from flax_attn.layers import Conv
from flax_attn.testing import relative_error, tolerance

TORCH_CONV = {1: F.conv1d, 2: F.conv2d}


def test_an_even_kernel_is_padded_on_both_ends_alike():
    conv = Conv(1, 1, (2,), padding=1, bias=False, rngs=nnx.Rngs(0))
    conv.kernel[...] = jnp.array([1.0, 10.0]).reshape(2, 1, 1)
    # "SAME" would pad one end alone and give three numbers.
    np.testing.assert_array_equal(conv(jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)).ravel(), [10, 21, 32, 3])


@pytest.mark.parametrize(
    ("kernel_size", "options", "bias"),
    [
        ((3,), {"padding": 1}, True),
        ((4,), {"padding": 2, "stride": 3}, False),
        ((2, 4), {"padding": (1, 3)}, True),
        ((3, 5), {"padding": 2, "stride": (2, 1), "dilation": (1, 2)}, True),
        ((5, 2), {"padding": 1, "groups": 2, "dilation": 2}, False),
    ],
)
def test_is_torchs_convolution(kernel_size, options, bias):
    x = np.random.default_rng(0).standard_normal((2, *(13, 11)[: len(kernel_size)], 4))
    with jax.enable_x64(True), jax.default_prng_impl("rbg"):
        conv = Conv(4, 6, kernel_size, bias=bias, **options, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        out = np.moveaxis(np.asarray(conv(jnp.asarray(x))), -1, 1)
        kernel = np.array(conv.kernel[...]).transpose(-1, -2, *range(len(kernel_size)))
        added = torch.tensor(np.asarray(conv.bias[...])) if bias else None
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    expected = TORCH_CONV[len(kernel_size)](x, torch.from_numpy(kernel), added, **options).numpy()
    assert relative_error(out, expected) <= tolerance("output", "float64")


@pytest.mark.parametrize(("in_features", "out_features"), [(4, 8), (8, 4)])
def test_groups_divide_the_channels_on_both_sides(in_features, out_features):
    with pytest.raises(ValueError, match=f"groups must divide {in_features} and {out_features} channels, got 8"):
        Conv(in_features, out_features, (3,), groups=8, rngs=nnx.Rngs(0))
