"""Dropout as a layer: when it drops, from which stream, and through which mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.stats import binomtest

from flax_attn import ops
from flax_attn.layers import Dropout
from flax_attn.testing.tolerances import P_VALUE

ONES = jnp.ones((53, 59))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_drops_at_the_rate_and_scales_what_it_keeps(rate):
    out = np.asarray(Dropout(rate, rngs=nnx.Rngs(3))(ONES))
    assert binomtest(int(np.sum(out == 0)), out.size, rate).pvalue > P_VALUE
    np.testing.assert_array_equal(np.unique(out), [0, np.float32(1) / np.float32(1 - rate)])


def test_is_active_while_training_and_only_then():
    layer = Dropout(0.5, rngs=nnx.Rngs(0))
    assert layer.is_active
    layer.eval()
    assert not layer.is_active
    assert layer(ONES) is ONES
    assert layer.rngs.count[...] == 0  # and it draws nothing
    layer.train()
    assert not np.array_equal(layer(ONES), ONES)


def test_a_view_has_a_mode_of_its_own():
    layer = Dropout(0.5, rngs=nnx.Rngs(0))
    view = nnx.view(layer, deterministic=True)
    assert (layer.is_active, view.is_active) == (True, False)
    view.set_view()  # as where another layer's mode is asked for
    assert not view.is_active
    assert nnx.view(view, deterministic=False).is_active


def test_every_call_draws_and_equal_seeds_draw_the_same():
    layer, same = Dropout(0.5, rngs=nnx.Rngs(0)), Dropout(0.5, rngs=nnx.Rngs(0))
    first, second = layer(ONES), layer(ONES)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, same(ONES))
    np.testing.assert_array_equal(second, same(ONES))


def test_two_layers_of_one_stream_drop_different_elements():
    rngs = nnx.Rngs(0)
    one, other = Dropout(0.5, rngs=rngs), Dropout(0.5, rngs=rngs)
    assert not np.array_equal(one(ONES), other(ONES))


def test_the_mask_is_the_one_op():
    layer = Dropout(0.3, rngs=nnx.Rngs(0))
    assert layer.keep_mask is ops.keep_mask
    key = nnx.clone(layer).rngs()
    np.testing.assert_array_equal(layer(ONES) != 0, ops.keep_mask(key, 0.3, ONES.shape))


def test_the_mask_can_be_replaced():
    layer = Dropout(0.75, rngs=nnx.Rngs(0))
    seen = []

    def every_other(key, rate, shape):
        seen.append((rate, shape))
        return jnp.arange(shape[0]) % 2 == 0

    layer.keep_mask = every_other
    np.testing.assert_array_equal(layer(jnp.array([1.0, 2.0, 3.0])), [4, 0, 12])
    assert seen == [(0.75, (3,))]


def test_rate_zero_needs_no_stream_and_a_rate_above_it_does():
    layer = Dropout(0.0, rngs=nnx.Rngs(params=0))
    assert layer(ONES) is ONES
    assert not layer.is_active
    with pytest.raises(AttributeError, match="dropout"):
        Dropout(0.1, rngs=nnx.Rngs(params=0))


def test_rate_one_gives_zeros_and_finite_gradients():
    layer = Dropout(1.0, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(layer)
    value, gradient = jax.value_and_grad(lambda x: nnx.merge(graphdef, state, copy=True)(x).sum())(ONES)
    np.testing.assert_array_equal(value, 0)
    np.testing.assert_array_equal(gradient, np.zeros_like(ONES))


@pytest.mark.parametrize("rate", [-0.1, 1.1, 10, float("nan")])
def test_a_rate_that_is_no_probability(rate):
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\], got " + str(rate)):
        Dropout(rate, rngs=nnx.Rngs(0))
