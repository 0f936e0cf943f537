"""Norms and deviations: PyTorch's values, and its gradients where a square root has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flax_attn import ops
from flax_attn.testing import relative_error, tolerance

DOUBLE = tolerance("output", "float64")
X = np.random.default_rng(0).standard_normal((3, 5, 7))
X[1] = 0  # for a norm
X[2] = 3  # for a deviation

FUNCTIONS = {
    "norm": (lambda x, **axis: ops.safe_norm(x, **axis), lambda x, dim: x.norm(dim=dim), jnp.linalg.norm),
    "std": (lambda x, **axis: ops.safe_std(x, **axis), lambda x, dim: x.std(dim=dim), jnp.std),
    "std of all": (
        lambda x, **axis: ops.safe_std(x, ddof=0, **axis),
        lambda x, dim: x.std(dim=dim, correction=0),
        jnp.std,
    ),
}


@pytest.mark.parametrize("axis", [(1, 2), -1, (2,), [0, 2]])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients_are_torchs(name, axis):
    ours, theirs, _ = FUNCTIONS[name]
    leaf = torch.tensor(X, requires_grad=True)
    expected = theirs(leaf, dim=axis)
    weights = np.random.default_rng(1).standard_normal(expected.shape)
    expected.backward(torch.tensor(weights))
    with jax.enable_x64(True):
        out, pull = jax.vjp(lambda x: ours(x, axis=axis), jnp.asarray(X))
        (gradient,) = pull(jnp.asarray(weights))
    assert relative_error(np.asarray(out), expected.detach().numpy()) <= DOUBLE
    assert np.isfinite(gradient).all()
    assert relative_error(np.asarray(gradient), leaf.grad.numpy()) <= DOUBLE


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_gradient_of_jax_is_nan_there(name):
    # If JAX ever takes PyTorch's, these functions may go.
    ours, _, other = FUNCTIONS[name]
    assert np.isnan(jax.grad(other)(jnp.zeros(3))).all()
    assert (jax.grad(ours)(jnp.zeros(3)) == 0).all()


def test_a_deviation_of_one_is_nan_as_in_torch():
    assert jnp.isnan(ops.safe_std(jnp.ones(1)))
    assert ops.safe_std(jnp.ones(1), ddof=0) == 0


def test_axes_are_kept_on_demand():
    x = jnp.ones((2, 3, 5))
    assert ops.safe_norm(x, (1, 2), keepdims=True).shape == ops.safe_std(x, (1, 2), keepdims=True).shape == (2, 1, 1)
    assert ops.safe_norm(x).shape == ops.safe_std(x).shape == ()


@pytest.mark.parametrize("function", [ops.safe_norm, ops.safe_std])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_of_narrow_numbers_are_wide(function, dtype):
    # 300 elements of 300 have a sum of squares that float16 has no number for; their deviation is that of the halves.
    x = jnp.concatenate([jnp.full(150, 300.0), jnp.full(150, -300.0)]).astype(dtype)
    out = function(x)
    expected = 300 * np.sqrt(300.0) if function is ops.safe_norm else 300 * np.sqrt(300 / 299)
    assert out.dtype == dtype
    assert relative_error(np.asarray([out], np.float64), np.array([expected])) <= tolerance("output", "bfloat16")
