"""Activations: PyTorch's gradient at kinks and at NaN, where JAX's is another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

from flax_attn import ops
from flax_attn.testing import relative_error, tolerance

X = np.array([-np.inf, -2.0, -0.0, 0.0, 1.0, np.inf, np.nan], np.float32)


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


def test_hard_swish_is_torchs():
    x = np.array([-4.0, -3.0, -1.5, -0.0, 1.5, 3.0, 4.0], np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    theirs = F.hardswish(tensor)
    theirs.sum().backward()
    ours = ops.hard_swish(jnp.asarray(x))
    slopes = jax.grad(lambda x: ops.hard_swish(x).sum())(jnp.asarray(x))
    assert relative_error(np.asarray(ours), theirs.detach().numpy()) <= tolerance("output", "float32")
    assert relative_error(np.asarray(slopes), tensor.grad.numpy()) <= tolerance("input gradient", "float32")


def test_hard_swish_of_what_is_not_finite():
    x = jnp.array([-jnp.inf, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(ops.hard_swish(x), [0, jnp.inf, jnp.nan])  # PyTorch: -inf * 0, NaN, for the first
    np.testing.assert_array_equal(jax.grad(lambda x: ops.hard_swish(x).sum())(x), [0, 1, 1])


def test_jax_has_others():
    # If JAX ever takes PyTorch's, these functions may go.
    assert list(np.flatnonzero(gradient(nnx.relu) != torch_gradient(F.relu))) == [6]
    assert list(np.flatnonzero(gradient(nnx.leaky_relu) != torch_gradient(F.leaky_relu))) == [2, 3]
    assert list(np.flatnonzero(gradient(jnp.abs) != torch_gradient(torch.abs))) == [2, 3, 6]


@pytest.mark.parametrize("function", [ops.relu, ops.leaky_relu, ops.hard_swish, ops.absolute])
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
