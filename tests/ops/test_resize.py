"""Nearest neighbours: PyTorch's, also where its arithmetic in float32 takes another one than fractions would."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import export
from torch.nn import functional as F

from flax_attn import ops


def torch_resize(x, size):
    return F.interpolate(x.permute(0, 3, 1, 2), size=size).permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("size", "to"), [((7, 5), (12, 8)), ((3, 2), (12, 8)), ((12, 8), (7, 5)), ((1, 1), (5, 7)), ((5, 7), (5, 7))]
)
def test_values_and_gradients_are_torchs(size, to):
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)
    weights = np.random.default_rng(1).integers(-4, 5, (2, *to, 3)).astype(np.float32)
    leaf = torch.tensor(x, requires_grad=True)
    expected = torch_resize(leaf, to)
    expected.backward(torch.tensor(weights))
    out, pull = jax.vjp(lambda x: ops.resize_nearest(x, to), jnp.asarray(x))
    np.testing.assert_array_equal(out, expected.detach())
    np.testing.assert_array_equal(pull(jnp.asarray(weights))[0], leaf.grad)


# By fractions element 23 of 46 is 23 * 14 / 46 = 7; PyTorch's 23 * (14 / 46) is just below.
@pytest.mark.parametrize(("length", "to"), [(14, 46), (26, 22), (39, 33), (2, 82), (5, 89), (64, 63)])
def test_rounding_is_torchs(length, to):
    x = np.arange(length, dtype=np.float32).reshape(1, length, 1, 1)
    expected = torch_resize(torch.tensor(x), (to, 1))
    np.testing.assert_array_equal(ops.resize_nearest(jnp.asarray(x), (to, 1)), expected)
    np.testing.assert_array_equal(jax.jit(lambda x: ops.resize_nearest(x, (to, 1)))(x), expected)


def test_jax_takes_others():
    # If JAX ever takes PyTorch's, this function may go.
    x = jnp.arange(3.0).reshape(1, 3, 1, 1)
    assert jax.image.resize(x, (1, 5, 1, 1), "nearest").ravel().tolist() == [0, 0, 1, 2, 2]
    assert ops.resize_nearest(x, (5, 1)).ravel().tolist() == [0, 0, 1, 1, 2]


def test_sizes_may_be_symbolic():
    shape = jax.ShapeDtypeStruct(export.symbolic_shape("h,w"), jnp.float32)
    exported = export.export(jax.jit(lambda x: ops.resize_nearest(x[None, :3, :2, None], x.shape)))(shape)
    x = np.random.default_rng(0).standard_normal((14, 5)).astype(np.float32)
    expected = torch_resize(torch.tensor(x[None, :3, :2, None]), (14, 5))
    np.testing.assert_array_equal(exported.call(x), expected)


def test_the_gradient_of_a_repeated_element_is_summed_in_wide_numbers():
    # 1 + 1 + ... in bfloat16 stays at 256.
    gradient = jax.grad(lambda x: ops.resize_nearest(x, (32, 32)).sum())(jnp.ones((1, 1, 1, 1), jnp.bfloat16))
    assert (gradient.item(), gradient.dtype) == (1024, jnp.bfloat16)
