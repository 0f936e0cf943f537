"""Convolutions in forms for CPUs: the values and gradients of JAX's own, and JAX's own wherever they are not for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flax_attn import ops
from flax_attn.ops import conv
from flax_attn.testing import relative_error, tolerance

ONES = {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1), "dimension_numbers": conv.AXES}


def double(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def results(function, x, kernel, padding, strides=(1, 1)):
    """Output and both gradients of a convolution, for a random cotangent."""

    @jax.jit
    def run(x, kernel):
        out, pull = jax.vjp(
            lambda x, kernel: function(x, kernel, strides, padding, dimension_numbers=conv.AXES), x, kernel
        )
        return out, *pull(jnp.asarray(double(*out.shape, seed=2)))

    with jax.enable_x64(True):
        return [np.asarray(array) for array in run(jnp.asarray(x), jnp.asarray(kernel))]


@pytest.mark.parametrize(
    ("shape", "kernel", "padding"),
    [
        ((2, 7, 11, 5), (5, 3, 5, 3), ((2, 2), (1, 1))),  # shifts of the gradient
        ((3, 11, 7, 2), (3, 5, 2, 13), ((1, 1), (2, 2))),  # shifts of the input; an odd number of columns
        ((2, 7, 10, 3), (3, 5, 3, 11), ((1, 1), (2, 2))),  # pairs of columns, out of few channels
        ((2, 5, 12, 3), (3, 2, 3, 11), ((0, 2), (1, 0))),  # an even kernel, padding that differs from end to end
        ((2, 5, 12, 3), (3, 5, 3, 11), ((0, 0), (0, 0))),  # no padding
        ((1, 3, 8, 2), (1, 2, 2, 17), ((0, 0), (1, 0))),  # along columns alone
        ((3, 5, 8, 4), (3, 3, 4, 11), ((1, 1), (1, 1))),  # pairs of as many channels as they are for
        ((3, 5, 8, 2), (3, 1, 2, 11), ((1, 1), (0, 0))),  # pairs along rows alone
        ((1, 7, 3, 11), (4, 1, 11, 2), ((3, 3), (0, 0))),  # along rows alone, with the most padding
        ((37, 5, 3, 7), (3, 3, 7, 2), ((1, 1), (1, 1))),  # many images, few channels
        ((2, 5, 11, 2), (7, 7, 2, 1), ((3, 3), (3, 3))),  # groups of columns, of few channels to few; a part of one
        ((2, 5, 16, 1), (3, 2, 1, 3), ((0, 2), (1, 0))),  # whole groups, an even kernel
        ((3, 7, 5, 4), (3, 1, 4, 4), ((1, 1), (0, 0))),  # fewer columns than in a group, along rows alone
        ((1, 3, 19, 1), (1, 11, 1, 1), ((0, 0), (10, 10))),  # a kernel wider than a group, with the most padding
        ((2, 5, 7, 9), (3, 3, 9, 3), ((1, 1), (2, 0))),  # groups for the input's gradient alone
        ((2, 5, 7, 3), (1, 1, 3, 11), ((0, 0), (0, 0))),  # a product
        ((37, 1, 1, 11), (1, 1, 11, 13), ((0, 0), (0, 0))),  # a product of many images
    ],
)
def test_values_and_gradients_are_those_of_jax(shape, kernel, padding):
    x, kernel = double(*shape), double(*kernel, seed=1)
    ours = results(ops.conv_general_dilated, x, kernel, padding)
    names = ("output", "input gradient", "parameter gradient")
    for name, got, expected in zip(names, ours, results(lax.conv_general_dilated, x, kernel, padding), strict=True):
        assert got.shape == expected.shape
        assert relative_error(got, expected) <= tolerance(name, "float64")


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "padding"),
    [
        ((3, 2, 2, 5), (3, 3, 5, 7), (1, 1), ((1, 1), (1, 1))),
        ((40, 1, 1, 5), (3, 3, 5, 7), (1, 1), ((1, 1), (1, 1))),  # many images, and the kernel's centre alone
        ((3, 4, 3, 5), (3, 3, 5, 7), (2, 2), ((1, 1), (1, 1))),  # a map that is larger than the output
        ((3, 1, 5, 5), (4, 3, 5, 7), (1, 1), ((1, 2), (1, 1))),  # an even kernel, and one row
        ((3, 5, 6, 5), (3, 4, 5, 7), (3, 2), ((2, 0), (3, 1))),  # strides and padding that differ
        ((3, 7, 4, 5), (5, 3, 5, 7), (1, 1), ((0, 0), (0, 0))),  # no padding
        ((3, 4, 4, 2), (7, 7, 2, 1), (1, 1), ((3, 3), (3, 3))),  # few channels
    ],
)
def test_maps_of_few_places_have_the_values_and_gradients_of_jax(shape, kernel, strides, padding):
    x, kernel = double(*shape), double(*kernel, seed=1)
    assert not is_jaxs(x, kernel, strides, padding)
    ours = results(ops.conv_general_dilated, x, kernel, padding, strides)
    theirs = results(lax.conv_general_dilated, x, kernel, padding, strides)
    for name, got, expected in zip(("output", "input gradient", "parameter gradient"), ours, theirs, strict=True):
        assert got.shape == expected.shape
        assert relative_error(got, expected) <= tolerance(name, "float64")


def test_a_map_of_few_places_goes_through_forward_mode():
    x, kernel = double(2, 2, 2, 3), double(3, 3, 3, 5, seed=1)

    def change(convolution):
        def one(x, kernel):
            return convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=conv.AXES)

        return np.asarray(jax.jvp(one, (x, kernel), (x, kernel))[1])

    with jax.enable_x64(True):
        ours, theirs = change(ops.conv_general_dilated), change(lax.conv_general_dilated)
    assert relative_error(ours, theirs) <= tolerance("output", "float64")


def is_jaxs(x, kernel, strides=(1, 1), padding=((1, 1), (1, 1)), **options):
    """Whether what is traced is JAX's convolution and nothing else."""
    x, kernel = (jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (x, kernel))
    call = jax.make_jaxpr(
        lambda x, kernel: ops.conv_general_dilated(x, kernel, strides, padding, **{**ONES, **options})
    )
    return [equation.primitive.name for equation in call(x, kernel).eqns] == ["conv_general_dilated"]


X, KERNEL = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 16))


def test_which_convolutions_are_jaxs_own():
    assert not is_jaxs(X, KERNEL)
    assert not is_jaxs(jnp.ones((32, 8, 8, 4)), KERNEL)
    assert not is_jaxs(jnp.ones((31, 8, 8, 8)), jnp.ones((3, 3, 8, 16)))
    assert is_jaxs(jnp.ones((32, 8, 8, 8)), jnp.ones((3, 3, 8, 16)))
    assert not is_jaxs(X, jnp.ones((1, 1, 4, 16)), padding=((0, 0), (0, 0)))
    assert is_jaxs(X, jnp.ones((1, 1, 4, 16)))  # padded
    assert is_jaxs(X, jnp.ones((1, 1, 4, 16)), strides=(2, 2), padding=((0, 0), (0, 0)))
    assert is_jaxs(X, KERNEL, padding=((3, 0), (0, 0)))
    assert is_jaxs(X, KERNEL, strides=(2, 1))
    assert is_jaxs(X[:, :5, :5], KERNEL, strides=(2, 2))  # of as many places as the kernel
    assert not is_jaxs(X[:, :4, :5], KERNEL, strides=(2, 2))
    assert is_jaxs(X[:, :4, :4], KERNEL, strides=(2, 2), feature_group_count=1, rhs_dilation=(2, 2))
    assert is_jaxs(jnp.ones((32, 5, 5, 8)), jnp.ones((7, 7, 8, 8)), padding=((3, 3), (3, 3)))  # more than few places
    assert is_jaxs(X, KERNEL, rhs_dilation=(1, 2))
    assert is_jaxs(X, KERNEL, lhs_dilation=(2, 1))
    assert is_jaxs(X, jnp.ones((3, 3, 2, 16)), feature_group_count=2)
    assert is_jaxs(X, KERNEL, preferred_element_type=jnp.float32)
    assert is_jaxs(X, KERNEL, padding="SAME")
    assert is_jaxs(X, jnp.moveaxis(KERNEL, 2, 0), dimension_numbers=("NHWC", "IHWO", "NHWC"))
    assert not is_jaxs(X, KERNEL, lhs_dilation=None, rhs_dilation=None, dimension_numbers=None)
    assert is_jaxs(X.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16))
    assert is_jaxs(X.astype(jnp.complex64), KERNEL.astype(jnp.complex64))


@pytest.mark.parametrize("kernel", [KERNEL, jnp.ones((3, 3, 4, 2))], ids=["pairs", "groups"])
def test_other_platforms_get_jaxs_own(kernel):
    def gradients(convolution):
        def loss(x, kernel):
            return jnp.sum(convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=conv.AXES))

        traced = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(X, kernel)
        texts = (traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda", "tpu"))
        return [
            sorted(line.split("dim_numbers")[1].split(" : ")[0] for line in text.splitlines() if "dim_numbers" in line)
            for text in texts
        ]

    ours, theirs = gradients(ops.conv_general_dilated), gradients(lax.conv_general_dilated)
    assert ours[0] != theirs[0]
    assert ours[1:] == theirs[1:]


def test_another_number_of_channels_gets_jaxs_error():
    with pytest.raises(ValueError, match=r"feature_group_count|input_feature"):
        ops.conv_general_dilated(X[..., :3], KERNEL, (1, 1), ((1, 1), (1, 1)))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_arrays_that_are_spread_by_hand_have_gradients(kind):
    """With a kernel that all devices share; the types of arrays are the same on one device."""
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(kind,))

    def gradient(x, kernel):
        def loss(kernel):
            return jnp.sum(jnp.sin(ops.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)))))

        return jax.grad(loss)(kernel)

    x, kernel = jnp.asarray(double(2, 5, 8, 3), jnp.float32), jnp.asarray(double(3, 3, 3, 11), jnp.float32)
    expected = np.asarray(gradient(x, kernel))
    by_hand = jax.shard_map(gradient, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P())
    with jax.set_mesh(mesh):
        spread = [jax.device_put(array, NamedSharding(mesh, spec)) for array, spec in ((x, P("batch")), (kernel, P()))]
        got = jax.jit(by_hand if kind == AxisType.Auto else gradient)(*spread)
    assert relative_error(np.asarray(got), expected) <= tolerance("parameter gradient", "float32")


def test_second_derivatives_are_those_of_jax():
    x, kernel = (jnp.asarray(double(*shape) / 7, jnp.float32) for shape in ((2, 5, 8, 3), (3, 5, 3, 11)))

    def second(convolution):
        def loss(kernel):
            return jnp.sum(jnp.sin(convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=conv.AXES)))

        return jax.grad(lambda kernel: jnp.sum(jnp.sin(jax.grad(loss)(kernel))))(kernel)

    expected = np.asarray(second(lax.conv_general_dilated))
    assert relative_error(np.asarray(second(ops.conv_general_dilated)), expected) <= tolerance(
        "parameter gradient", "float32"
    )
