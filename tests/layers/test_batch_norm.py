"""BatchNorm: PyTorch's momentum, PyTorch's unbiased running variance, and a variance that keeps its digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flax_attn.layers import BatchNorm
from flax_attn.testing import relative_error, tolerance

OUTPUT, BUFFER = tolerance("output", "float64"), tolerance("buffer", "float64")


def double(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_running_statistics_by_hand():
    norm = BatchNorm(1, momentum=0.5, rngs=nnx.Rngs(0))
    norm(jnp.array([[1.0], [2.0], [6.0]]))
    # mean 3, unbiased variance (4 + 1 + 9) / 2 = 7 (biased: 14/3), each averaged with its initial value.
    assert norm.mean[...].tolist() == [1.5]
    assert norm.var[...].tolist() == [4.0]


@pytest.mark.parametrize("shape", [(7, 3), (5, 7, 3), (2, 5, 7, 3)])
@pytest.mark.parametrize("momentum", [0.1, 0.01])
def test_two_steps_against_numpy(shape, momentum):
    first, second, scale, bias = double(*shape), double(*shape, seed=1), double(3, seed=2), double(3, seed=3)
    axes = tuple(range(len(shape) - 1))
    with jax.enable_x64(True):
        norm = BatchNorm(3, momentum=momentum, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        norm.scale[...], norm.bias[...] = scale, bias
        norm(jnp.asarray(first))
        out = np.asarray(norm(jnp.asarray(second)))
        mean, var = np.asarray(norm.mean[...]), np.asarray(norm.var[...])
    expected = (second - second.mean(axes)) / np.sqrt(second.var(axes) + 1e-5) * scale + bias
    assert relative_error(out, expected) <= OUTPUT
    old = 1 - momentum
    assert relative_error(mean, momentum * (old * first.mean(axes) + second.mean(axes))) <= BUFFER
    unbiased = [x.var(axes, ddof=1) for x in (first, second)]
    assert relative_error(var, old**2 + momentum * (old * unbiased[0] + unbiased[1])) <= BUFFER


def test_without_momentum_the_running_statistics_are_the_mean_over_all_batches():
    norm = BatchNorm(1, momentum=None, rngs=nnx.Rngs(0))
    for batch in ([1.0, 3.0], [2.0, 8.0], [4.0, 4.0]):
        norm(jnp.array(batch)[:, None])
    # Means 2, 5, 4 and unbiased variances 2, 18, 0; the initial values have no weight.
    assert norm.num_batches_tracked[...] == 3
    got, expected = np.array([norm.mean[0], norm.var[0]]), np.array([11 / 3, 20 / 3])
    assert relative_error(got, expected) <= tolerance("buffer", "float32")
    norm.eval()
    norm(jnp.ones((2, 1)))
    assert norm.num_batches_tracked[...] == 3


def test_momentum_and_variance_are_not_flaxs():
    x = jnp.asarray(double(7, 3), jnp.float32)
    ours, flaxs = BatchNorm(3, momentum=0.1, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0))
    ours(x), flaxs(x)
    single = tolerance("buffer", "float32")
    assert relative_error(np.asarray(ours.mean[...]), np.asarray(flaxs.mean[...])) <= single
    assert relative_error(np.asarray(ours.var[...]), np.asarray(flaxs.var[...])) > single


def test_eval_mode_normalises_with_the_running_statistics_and_keeps_them():
    norm = BatchNorm(2, rngs=nnx.Rngs(0))
    norm.mean[...], norm.var[...] = jnp.array([1.0, -2.0]), jnp.array([4.0, 0.25])
    norm.eval()
    out = np.asarray(norm(jnp.array([[3.0, -2.0], [5.0, -1.0]])))
    expected = np.array([[2.0, 0.0], [4.0, 1.0]]) / np.sqrt([4 + 1e-5, 0.25 + 1e-5])
    assert relative_error(out, expected) <= tolerance("output", "float32")
    np.testing.assert_array_equal(norm.mean[...], [1, -2])
    np.testing.assert_array_equal(norm.var[...], [4, 0.25])
    norm.train()
    norm(jnp.array([[3.0, -2.0], [5.0, -1.0]]))
    assert not np.array_equal(norm.mean[...], [1, -2])


def test_the_default_eps_and_momentum_are_pytorchs():
    ours, theirs = BatchNorm(3, rngs=nnx.Rngs(0)), torch.nn.BatchNorm2d(3)
    assert (ours.eps, ours.momentum) == (theirs.eps, theirs.momentum)


def test_the_variance_of_numbers_far_from_zero_keeps_its_digits():
    x = (1000 + double(101, 3)).astype(np.float32)
    expected = x.astype(np.float64).var(0, ddof=1)
    ours, flaxs = BatchNorm(3, momentum=1.0, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, momentum=0.0, rngs=nnx.Rngs(0))
    ours(jnp.asarray(x)), flaxs(jnp.asarray(x))
    single = tolerance("buffer", "float32")
    assert relative_error(np.asarray(ours.var[...]), expected) <= single
    assert relative_error(np.asarray(flaxs.var[...]) * 101 / 100, expected) > single


@pytest.mark.parametrize(
    ("options", "out", "param"),
    [
        ({"dtype": jnp.bfloat16}, jnp.bfloat16, jnp.float32),
        ({"param_dtype": jnp.bfloat16}, jnp.float32, jnp.bfloat16),
        ({"dtype": jnp.float16, "param_dtype": jnp.float16}, jnp.float16, jnp.float16),
    ],
)
def test_narrow_dtypes_leave_the_running_statistics_in_float32(options, out, param):
    norm = BatchNorm(3, **options, rngs=nnx.Rngs(0))
    assert norm(jnp.asarray(double(7, 3), jnp.float32)).dtype == out
    assert (norm.scale.dtype, norm.bias.dtype) == (param, param)
    assert (norm.mean.dtype, norm.var.dtype) == (jnp.float32, jnp.float32)


def test_running_statistics_move_by_less_than_a_bfloat16_can_hold():
    norm = BatchNorm(1, momentum=0.01, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    norm(jnp.array([[-0.5], [0.5]], jnp.bfloat16))
    assert relative_error(np.asarray(norm.var[...]), np.array([0.995])) <= tolerance("buffer", "float32")


def test_one_value_per_feature_has_no_variance():
    norm = BatchNorm(3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="x must have more than 1 value per feature while training, got 1"):
        norm(jnp.ones((1, 1, 1, 3)))
    norm.eval()
    assert norm(jnp.ones((1, 1, 1, 3))).shape == (1, 1, 1, 3)


def test_a_view_has_a_mode_of_its_own():
    norm = BatchNorm(2, rngs=nnx.Rngs(0))
    view = nnx.view(norm, use_running_average=True)
    assert (norm.use_running_average, view.use_running_average) == (False, True)
    view.set_view()  # as where another layer's mode is asked for
    assert view.use_running_average
    assert not nnx.view(view, use_running_average=False).use_running_average
    assert view.mean is norm.mean


class Block(nnx.Module):
    def __init__(self):
        self.norm = BatchNorm(3, param_dtype=jnp.float64, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.norm(x)


def outputs(block, parts, weights):
    """Output, gradient and running statistics of a block that is called on each of the parts (n, b, h, w, 3)."""
    graph, state = nnx.split(block)

    def call(part):
        module = nnx.merge(graph, state, copy=True)
        return module(part), nnx.state(module, nnx.BatchStat)

    def loss(parts):
        y, stats = jax.vmap(call, axis_name="data")(parts)
        return jnp.sum(weights * y), (y, stats)

    gradient, (y, stats) = jax.grad(loss, has_aux=True)(parts)
    return [y, gradient, *jax.tree.leaves(stats)]


def test_parts_of_a_batch_share_their_statistics_over_a_named_axis():
    with jax.enable_x64(True):
        x, weights = jnp.asarray(double(4, 2, 5, 7, 3)), jnp.asarray(double(4, 2, 5, 7, 3, seed=1))
        whole = outputs(Block(), x.reshape(1, 8, 5, 7, 3), weights.reshape(1, 8, 5, 7, 3))
        shared = outputs(nnx.view(Block(), axis_name="data"), x, weights)
        alone = outputs(Block(), x, weights)
        for one, other in zip(whole[:2], shared[:2], strict=True):
            assert relative_error(np.asarray(other), np.asarray(one).reshape(x.shape)) <= OUTPUT
        for one, other in zip(whole[2:], shared[2:], strict=True):
            assert relative_error(np.asarray(other), np.broadcast_to(one, other.shape)) <= BUFFER
        assert relative_error(np.asarray(alone[0]), np.asarray(whole[0]).reshape(x.shape)) > 0.01
