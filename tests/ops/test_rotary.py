"""Rotary positions: against complex numbers, and what they are for, that only differences of places count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attn import ops
from flax_attn.testing import relative_error, tolerance

OUTPUT = tolerance("output", "float64")


def test_angles_by_hand():
    angles = ops.rotary_angles(3, 5, 2, (6, 10))
    assert angles.shape == (15, 4)
    assert angles.dtype == np.float64
    for row in range(3):
        for column in range(5):
            expected = [2 * row, 2 * row / 100, 2 * column, 2 * column / 100]
            assert relative_error(angles[5 * row + column], np.array(expected)) <= OUTPUT


def test_a_pair_is_a_complex_number():
    rng = np.random.default_rng(0)
    x, angles = rng.standard_normal((2, 5, 3, 8)), rng.standard_normal((5, 4))
    with jax.enable_x64(True):
        out = np.asarray(ops.rotate(jnp.asarray(x), angles))
    turned = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[None, :, None]
    assert relative_error(out, np.stack([turned.real, turned.imag], -1).reshape(x.shape)) <= OUTPUT


def test_products_depend_on_the_difference_of_places():
    rng = np.random.default_rng(0)
    query, key = (np.broadcast_to(rng.standard_normal(8), (1, 20, 1, 8)) for _ in range(2))
    with jax.enable_x64(True):
        q, k = (np.asarray(ops.rotate(jnp.asarray(x), ops.rotary_angles(4, 5, 2, (4, 5)))) for x in (query, key))
    products = (q[0, :, 0] @ k[0, :, 0].T).reshape(4, 5, 4, 5)
    assert relative_error(products[0, 1, 2, 4], products[1, 0, 3, 3]) <= OUTPUT
    assert relative_error(products[0, 1, 2, 4], products[1, 0, 3, 2]) > OUTPUT


def test_large_angles_keep_their_digits_in_float32():
    angle = 12345.678
    out = ops.rotate(jnp.array([[[[1.0, 0.0]]]]), np.array([[angle]])).ravel()
    expected = np.array([np.cos(angle), np.sin(angle)])
    assert relative_error(np.asarray(out), expected) <= tolerance("output", "float32")


@pytest.mark.parametrize("sizes", ["h, w", "3, w", "h, 5"])
def test_symbolic_sizes_have_the_same_angles(sizes):
    shape = jax.export.symbolic_shape(sizes)

    def turned(x):
        h, w = x.shape
        return ops.rotate(jnp.ones((1, h * w, 1, 8)), ops.rotary_angles(h, w, 2, (7, 7)))

    exported = jax.export.export(jax.jit(turned))(jax.ShapeDtypeStruct(shape, jnp.float32))
    assert relative_error(
        np.asarray(exported.call(jnp.ones((3, 5)))), np.asarray(turned(jnp.ones((3, 5))))
    ) <= tolerance("output", "float32")
