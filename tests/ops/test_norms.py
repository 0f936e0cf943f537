import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flax_attn import ops


@pytest.mark.parametrize("axis", [-1, (0, 2)])
def test_value_and_gradient_are_pytorchs_also_at_zero(axis):
    x = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)
    x[1], x[:, 2] = 0, 0
    tensor = torch.from_numpy(x).requires_grad_()
    norm = tensor.norm(dim=axis, keepdim=True)
    norm.sum().backward()
    got, slope = jax.value_and_grad(lambda x: jnp.sum(ops.safe_norm(x, axis)))(jnp.asarray(x))
    np.testing.assert_allclose(ops.safe_norm(jnp.asarray(x), axis), norm.detach(), rtol=1e-6)
    np.testing.assert_allclose(slope, tensor.grad, rtol=1e-5)
    assert got > 0


def test_squares_do_not_overflow_in_float16():
    assert ops.safe_norm(jnp.full(4, 300, jnp.float16), 0).tolist() == [600]
