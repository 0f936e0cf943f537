"""Pools: PyTorch's values and PyTorch's gradients, where a maximum occurs twice and where a square root has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch.nn import functional as F

from flax_attn import ops
from flax_attn.testing import relative_error, tolerance

DOUBLE = tolerance("output", "float64")
NAN, INF = np.nan, np.inf

# Channels-last (b, h, w, c) to PyTorch's (b, c, h, w).
TO_TORCH = (0, 3, 1, 2)


def tied(*shape, seed=0):
    """Few distinct values, so that every maximum occurs several times."""
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.float32)


def torch_gradient(function, x):
    leaf = torch.from_numpy(x).requires_grad_()
    function(leaf).sum().backward()
    return leaf.grad.numpy()


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_max_first_is_torch_max_with_its_gradient(axis):
    x = tied(5, 7, 11)
    np.testing.assert_array_equal(ops.max_first(x, axis), torch.from_numpy(x).max(axis, keepdim=True)[0])
    ours = jax.grad(lambda x: ops.max_first(x, axis).sum())(x)
    np.testing.assert_array_equal(ours, torch_gradient(lambda x: x.max(axis)[0], x))


def test_max_of_jax_numpy_would_split_the_gradient():
    x = jnp.array([3.0, 1.0, 3.0])
    np.testing.assert_array_equal(jax.grad(jnp.max)(x), [0.5, 0, 0.5])
    np.testing.assert_array_equal(jax.grad(lambda x: ops.max_first(x, -1)[0])(x), [1, 0, 0])


@pytest.mark.parametrize("row", [[NAN, 1, 2], [1, NAN, 2], [2, 1, NAN], [-INF, -INF, -INF], [1, INF, INF]])
def test_max_first_of_nan_and_infinity_is_torchs(row):
    x = np.array(row, np.float32)
    np.testing.assert_array_equal(ops.max_first(x, -1), torch.from_numpy(x).max(-1, keepdim=True)[0])
    ours = jax.grad(lambda x: ops.max_first(x, -1)[0])(x)
    np.testing.assert_array_equal(ours, torch_gradient(lambda x: x.max(-1)[0], x))


def test_max_first_goes_through_forward_mode_vmap_and_symbolic_sizes():
    x = tied(5, 7, 11)
    gradient = jax.grad(lambda x: ops.max_first(x, 1).sum())
    expected = gradient(x)
    change = np.arange(x.size, dtype=np.float32).reshape(x.shape)
    forward = jax.jvp(lambda x: ops.max_first(x, 1), [x], [change])[1]
    np.testing.assert_array_equal(forward, np.sum(change * expected, axis=1, keepdims=True))
    np.testing.assert_array_equal(jax.vmap(jax.grad(lambda x: ops.max_first(x, 0).sum()))(x), expected)
    shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape("a, b, 11"), x.dtype)
    np.testing.assert_array_equal(jax.export.export(jax.jit(gradient))(shape).call(x), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_gradient_of_a_maximum_is_not_rounded(dtype):
    x = jnp.zeros((1, 4099), dtype)  # more places than the dtype counts to
    given = jnp.full((1, 1), 1.703125, dtype)
    (gradient,) = jax.vjp(lambda x: ops.max_first(x, 1), x.at[0, 4097].set(1))[1](given)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(gradient, np.float32)), [4097])
    assert float(gradient[0, 4097]) == 1.703125


HAND = np.array([[1.0, -2.0], [2.0, 4.0]]).reshape(1, 2, 2, 1)


@pytest.mark.parametrize(
    ("pool_type", "expected"), [("avg", 1.25), ("max", 4.0), ("lp", 5.0), ("lse", np.log(np.exp([1, -2, 2, 4]).sum()))]
)
def test_global_pool_by_hand(pool_type, expected):
    with jax.enable_x64(True):
        pooled = np.asarray(ops.global_pool(jnp.asarray(HAND), pool_type))
    assert relative_error(pooled, np.array([[expected]])) <= DOUBLE


@pytest.mark.parametrize(
    ("pool_type", "third"),
    [
        ("avg", lambda x: x.mean((1, 2))),
        ("max", lambda x: x.max((1, 2))),
        ("lp", lambda x: np.linalg.norm(x, axis=(1, 2))),
        ("lse", lambda x: logsumexp(x, axis=(1, 2))),
    ],
)
def test_global_pool_pools_the_whole_map_per_channel(pool_type, third):
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 3))
    with jax.enable_x64(True):
        pooled = np.asarray(ops.global_pool(jnp.asarray(x), pool_type))
    assert relative_error(pooled, third(x)) <= DOUBLE


@pytest.mark.parametrize(
    ("pool_type", "third"),
    [
        ("avg", lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1)),
        ("max", lambda x: F.max_pool2d(x, (5, 7)).flatten(1)),
        ("lp", lambda x: F.lp_pool2d(x, 2, (5, 7)).flatten(1)),
        ("lse", lambda x: torch.logsumexp(x, (2, 3))),
    ],
)
def test_global_pool_is_torchs_with_its_gradient(pool_type, third):
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 3))
    leaf = torch.from_numpy(x.transpose(TO_TORCH).copy()).requires_grad_()
    expected = third(leaf)
    expected.square().sum().backward()
    pool_type = "".join(pool_type)  # another string of the same letters, as one from a file would be
    with jax.enable_x64(True):
        pooled, pull = jax.vjp(lambda x: ops.global_pool(x, pool_type), jnp.asarray(x))
        (gradient,) = pull(2 * pooled)
    assert relative_error(np.asarray(pooled), expected.detach().numpy()) <= DOUBLE
    assert relative_error(np.asarray(gradient).transpose(TO_TORCH), leaf.grad.numpy()) <= DOUBLE


@pytest.mark.parametrize("value", [-1000.0, 0.0, 3.0, 1000.0])
def test_lse_of_a_constant_map_adds_the_log_of_the_number_of_pixels(value):
    # No 1/n: a mean would give back the value. And no overflow in exp(1000).
    with jax.enable_x64(True):
        pooled = np.asarray(ops.global_pool(jnp.full((1, 5, 7, 1), value, jnp.float64), "lse"))
    assert relative_error(pooled, np.array([[value + np.log(35)]])) <= DOUBLE


def test_lse_with_one_huge_value_is_that_value():
    x = jnp.zeros((1, 3, 5, 1)).at[0, 1, 2, 0].set(1e4)
    np.testing.assert_array_equal(ops.global_pool(x, "lse"), [[1e4]])
    assert jnp.isfinite(jax.grad(lambda x: ops.global_pool(x, "lse").sum())(x)).all()


def test_gradient_of_lse_is_the_softmax_over_pixels():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7))
    with jax.enable_x64(True):
        gradient = np.asarray(jax.grad(lambda x: ops.global_pool(x, "lse").sum())(jnp.asarray(x)))
    softmax = torch.softmax(torch.from_numpy(x).flatten(1, 2), 1).reshape(x.shape).numpy()
    assert relative_error(gradient, softmax) <= DOUBLE


def test_lp_is_a_sum_and_not_a_mean():
    np.testing.assert_array_equal(ops.global_pool(jnp.full((1, 2, 8, 1), 3.0), "lp"), [[12.0]])


def test_lp_has_gradient_zero_at_zero_as_in_torch():
    x = np.zeros((1, 2, 3, 2), np.float32)
    x[..., 1] = 2.0  # one channel is zero, the other is not
    np.testing.assert_array_equal(ops.global_pool(x, "lp")[:, 0], [0])
    ours = jax.grad(lambda x: ops.global_pool(x, "lp").sum())(x)
    theirs = torch_gradient(lambda x: F.lp_pool2d(x, 2, (2, 3)), x.transpose(TO_TORCH))
    np.testing.assert_array_equal(ours[..., 0], np.zeros((1, 2, 3)))
    assert relative_error(np.asarray(ours).transpose(TO_TORCH), theirs) <= tolerance("input gradient", "float32")


def test_lp_at_zero_makes_no_nan_on_the_way():
    # Under JAX_DEBUG_NANS one that is thrown away later would raise, too.
    with jax.debug_nans(True):
        gradient = jax.grad(lambda x: ops.global_pool(x, "lp").sum())(jnp.zeros((1, 2, 3, 1)))
    np.testing.assert_array_equal(gradient, np.zeros((1, 2, 3, 1)))


@pytest.mark.parametrize("pool", [torch.nn.AdaptiveMaxPool2d(1), torch.nn.MaxPool2d((5, 7))])
def test_global_max_gives_the_gradient_to_the_first_maximum_in_row_order(pool):
    x = tied(2, 5, 7, 3)
    ours = jax.grad(lambda x: ops.global_pool(x, "max").sum())(x)
    np.testing.assert_array_equal(np.asarray(ours).transpose(TO_TORCH), torch_gradient(pool, x.transpose(TO_TORCH)))


def test_unknown_pool_type():
    with pytest.raises(ValueError, match="pool_type must be one of 'avg', 'max', 'lp', 'lse', got 'mean'"):
        ops.global_pool(jnp.ones((1, 2, 3, 1)), "mean")


SIZES = [(6, 8), (5, 7), (2, 11)]


@pytest.mark.parametrize("size", SIZES)
def test_max_pool_2x2_is_reduce_window_and_torch_with_their_gradient(size):
    x = tied(2, *size, 3)

    def windows(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    np.testing.assert_array_equal(ops.max_pool_2x2(x), windows(x))
    ours = np.asarray(jax.grad(lambda x: ops.max_pool_2x2(x).sum())(x))
    np.testing.assert_array_equal(ours, jax.grad(lambda x: windows(x).sum())(x))
    theirs = torch_gradient(lambda x: F.max_pool2d(x, 2), x.transpose(TO_TORCH))
    np.testing.assert_array_equal(ours.transpose(TO_TORCH), theirs)


@pytest.mark.parametrize("place", range(4))
def test_max_pool_2x2_hands_nan_on_as_torch_does(place):
    x = np.array([1.0, -INF, 2.0, INF], np.float32)
    x[place] = NAN
    x = x.reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(ops.max_pool_2x2(x), np.full((1, 1, 1, 1), NAN))
    np.testing.assert_array_equal(F.max_pool2d(torch.from_numpy(x.transpose(TO_TORCH)), 2), np.full((1, 1, 1, 1), NAN))


@pytest.mark.parametrize(
    ("length", "bins"), [(1, 1), (1, 3), (5, 1), (5, 5), (5, 3), (5, 7), (7, 2), (7, 11), (12, 5), (12, 3)]
)
def test_adaptive_avg_pool_is_torchs(length, bins):
    # Fewer bins than rows, more bins than rows (they overlap then), and as many.
    x = np.random.default_rng(0).standard_normal((2, length, 3, 2))
    expected = F.adaptive_avg_pool2d(torch.from_numpy(x.transpose(TO_TORCH)), (bins, 2)).numpy()
    with jax.enable_x64(True):
        pooled = np.asarray(ops.adaptive_avg_pool(jnp.asarray(x), (bins, 2)))
    assert relative_error(pooled.transpose(TO_TORCH), expected) <= DOUBLE


def test_as_many_bins_as_rows_are_the_rows():
    # As numbers and not as a sum with zeros, in which one NaN would be everywhere.
    x = jnp.arange(307.0).at[5].set(NAN).reshape(1, 307, 1, 1)
    np.testing.assert_array_equal(ops.adaptive_avg_pool(x, (int("307"), 1)), x)


def test_one_bin_is_the_mean_and_no_product_with_a_rounded_1_over_n():
    # 1/13 as a bfloat16 is so far off that thirteen times 1.703125 would be 1.7109375.
    x = jnp.full((1, 13, 1, 1), 1.703125, jnp.bfloat16)
    np.testing.assert_array_equal(ops.adaptive_avg_pool(x, (1, 1)), x[:, :1])


def test_adaptive_avg_pool_by_hand():
    # Bins of a length of 5 in 3: [0, 2), [1, 4), [3, 5).
    x = jnp.array([1.0, 3.0, 5.0, 7.0, 9.0]).reshape(1, 1, 5, 1)
    np.testing.assert_array_equal(ops.adaptive_avg_pool(x, (1, 3)).ravel(), [2, 5, 8])
