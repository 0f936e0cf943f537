"""ReLUs and the absolute value, whose gradient at 0 and at NaN is PyTorch's and not JAX's, and the hard sigmoid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

from flax_attn import ops

X = np.array([-np.inf, -2.0, -0.0, 0.0, 3.0, np.inf, np.nan], np.float32)


def gradient(function):
    return np.asarray(jax.grad(lambda x: function(x).sum())(jnp.asarray(X)))


def torch_gradient(function):
    x = torch.tensor(X, requires_grad=True)
    function(x).sum().backward()
    return x.grad.numpy()


@pytest.mark.parametrize(("ours", "theirs"), [(ops.relu, F.relu), (ops.leaky_relu, F.leaky_relu), (ops.absolute, abs)])
def test_values_and_gradients_are_torchs(ours, theirs):
    np.testing.assert_array_equal(ours(jnp.asarray(X)), theirs(torch.tensor(X)))
    np.testing.assert_array_equal(gradient(ours), torch_gradient(theirs))


def test_jax_has_others():
    # If JAX ever takes PyTorch's, these functions may go.
    assert list(np.flatnonzero(gradient(nnx.relu) != torch_gradient(F.relu))) == [6]
    assert list(np.flatnonzero(gradient(nnx.leaky_relu) != torch_gradient(F.leaky_relu))) == [2, 3]
    assert list(np.flatnonzero(gradient(jnp.abs) != torch_gradient(torch.abs))) == [2, 3, 6]


@pytest.mark.parametrize("function", [ops.relu, ops.leaky_relu, ops.absolute])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_the_dtype_stays(function, dtype):
    assert function(jnp.ones(3, dtype)).dtype == dtype


def test_the_hard_sigmoid_is_torchs():
    x = np.append(X, [-3, -1, 4]).astype(np.float32)
    leaf = torch.tensor(x, requires_grad=True)
    expected = F.hardsigmoid(leaf)
    expected.sum().backward()
    np.testing.assert_array_equal(ops.hard_sigmoid(jnp.asarray(x)), expected.detach())
    np.testing.assert_array_equal(jax.grad(lambda x: ops.hard_sigmoid(x).sum())(jnp.asarray(x)), leaf.grad)


def test_the_hard_sigmoid_is_rounded_once():
    x = jnp.linspace(-3, 3, 999).astype(jnp.bfloat16)
    wide = jax.nn.hard_sigmoid(x.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(jax.jit(ops.hard_sigmoid)(x), wide)
    assert (ops.hard_sigmoid(x) != jax.nn.hard_sigmoid(x)).any()


def test_the_gradient_of_torchs_hard_sigmoid_is_a_sixth_in_float32():
    # The reason for a tolerance of originals; if PyTorch ever mends it, that may go.
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    F.hardsigmoid(x).backward()
    assert x.grad.item() == float(np.float32(1 / 6)) != 1 / 6
