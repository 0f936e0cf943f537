"""Convolutions in groups of channels, in forms for CPUs: the values and gradients of JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flax_attn import ops
from flax_attn.ops import grouped
from flax_attn.testing import relative_error, tolerance

NAMES = ("output", "input gradient", "parameter gradient")


def arrays(shape, kernel):
    return [jnp.asarray(np.random.default_rng(seed).standard_normal(size)) for seed, size in ((0, shape), (1, kernel))]


def results(function, x, kernel, strides=(1, 1), padding=((1, 1), (1, 1)), axes=grouped.AXES, **options):
    """Output and both gradients of a convolution, for a random cotangent."""

    @jax.jit
    def run(x, kernel):
        out, pull = jax.vjp(
            lambda x, kernel: function(x, kernel, strides, padding, **options, dimension_numbers=axes),
            x,
            kernel,
        )
        return out, *pull(jnp.asarray(np.random.default_rng(2).standard_normal(out.shape), out.dtype))

    return [np.asarray(array) for array in run(x, kernel)]


# Shapes of the map and the kernel, groups, and what else differs from a 3x3 kernel's usual.
CASES = {
    "each channel": ((2, 7, 11, 5), (3, 3, 1, 5), 5, {}),
    "each channel, long kernel": ((2, 7, 11, 5), (1, 7, 1, 5), 5, {"padding": ((0, 0), (3, 3))}),
    "each channel, even kernel": ((2, 5, 7, 3), (2, 4, 1, 3), 3, {"padding": ((0, 1), (2, 1))}),
    "each channel, strides": ((2, 7, 10, 5), (3, 3, 1, 5), 5, {"strides": (2, 3)}),
    "each channel, dilated": ((2, 11, 13, 3), (3, 5, 1, 3), 3, {"rhs_dilation": (3, 2), "padding": ((3, 3), (4, 4))}),
    "each channel, both": ((2, 9, 8, 3), (3, 3, 1, 3), 3, {"rhs_dilation": (2, 2), "strides": (2, 2)}),
    "each channel, padded beyond the kernel": ((2, 3, 2, 3), (3, 3, 1, 3), 3, {"padding": ((4, 3), (5, 0))}),
    "each channel, a weight each": ((2, 5, 7, 3), (1, 1, 1, 3), 3, {"padding": ((0, 0), (0, 0))}),
    "twice the channels": ((2, 5, 7, 3), (3, 3, 1, 6), 3, {}),
    "few groups": ((2, 5, 7, 10), (3, 3, 5, 6), 2, {}),
    "more channels than are taken at once": ((2, 5, 7, 70), (3, 3, 2, 35), 35, {}),
    "wide groups": ((1, 5, 3, 80), (3, 3, 40, 6), 2, {}),
    "strides and dilation": ((2, 9, 11, 6), (3, 3, 2, 9), 3, {"strides": (2, 1), "rhs_dilation": (1, 2)}),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_jax(case, dtype):
    shape, kernel, groups, options = CASES[case]
    options = {"precision": "highest", "feature_group_count": groups, **options}
    with jax.enable_x64(True):
        x, weights = arrays(shape, kernel)
        expected = results(lax.conv_general_dilated, x, weights, **options)
        got = results(ops.conv_general_dilated, x.astype(dtype), weights.astype(dtype), **options)
    for name, ours, theirs in zip(NAMES, got, expected, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, dtype)
        assert relative_error(ours, theirs) <= tolerance(name, dtype)


@pytest.mark.parametrize(
    ("kernel", "padding"),
    [((3, 5, 1, 1, 4), ((1, 1), (2, 2), (0, 0))), ((5, 4, 1, 3, 2), ((4, 4), (0, 3), (0, 0)))],
    ids=str,
)
def test_volumes_and_flat_kernels(kernel, padding):
    with jax.enable_x64(True):
        given = arrays((2, 5, 7, 3, kernel[3]), kernel)
        got, expected = (
            results(convolution, *given, (1, 1, 1), padding, axes=grouped.VOLUME_AXES)
            for convolution in (ops.conv_general_dilated, lax.conv_general_dilated)
        )
    for name, ours, theirs in zip(NAMES, got, expected, strict=True):
        assert relative_error(ours, theirs) <= tolerance(name, "float64")


@pytest.mark.parametrize(
    "given",
    [{}, {"padding": ((1, 1), (1, 1), (1, 0))}, {"strides": (1, 1, 2)}, {"rhs_dilation": (2, 1, 1)}, {"kernel": 2}],
    ids=str,
)
def test_which_volumes_are_jaxs_own(given):
    given = {"strides": (1, 1, 1), "padding": ((1, 1), (1, 1), (0, 0)), "kernel": 1, **given}
    shape, strides, padding = (3, 3, given.pop("kernel"), 2, 3), given.pop("strides"), given.pop("padding")
    plain = (strides, padding, shape[2], given) != ((1, 1, 1), ((1, 1), (1, 1), (0, 0)), 1, {})
    call = jax.make_jaxpr(
        lambda x, kernel: ops.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=grouped.VOLUME_AXES, **given
        )
    )
    traced = call(jnp.ones((2, 5, 7, 3, 2)), jnp.ones(shape))
    assert ([equation.primitive.name for equation in traced.eqns] == ["conv_general_dilated"]) == plain


def primitives(dtype="float32", padding=((1, 1), (1, 1)), groups=4, **options):
    x, kernel = jnp.ones((2, 8, 8, 4), dtype), jnp.ones((3, 3, 4 // groups, 4), dtype)
    call = jax.make_jaxpr(
        lambda x, kernel: ops.conv_general_dilated(x, kernel, (1, 1), padding, feature_group_count=groups, **options)
    )
    return [equation.primitive.name for equation in call(x, kernel).eqns]


@pytest.mark.parametrize(
    "given",
    [
        {"dtype": "bfloat16"},
        {"padding": "SAME"},
        {"preferred_element_type": jnp.float32},
        {"lhs_dilation": (2, 1)},
        {"dimension_numbers": ("NHWC", "HWIO", "NCHW")},
    ],
    ids=str,
)
def test_which_are_jaxs_own(given):
    assert primitives(**given) == ["conv_general_dilated"]
    assert primitives() != ["conv_general_dilated"]
    assert primitives(groups=2) != ["conv_general_dilated"]


@pytest.mark.parametrize("groups", [2, 6])
def test_other_platforms_get_jaxs_own(groups):
    x, kernel = jnp.ones((2, 8, 8, 6)), jnp.ones((3, 3, 6 // groups, 6))

    def loss(x, kernel):
        pads = ((1, 1), (1, 1))
        return jnp.sum(jnp.sin(ops.conv_general_dilated(x, kernel, (1, 1), pads, feature_group_count=groups)))

    traced = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(x, kernel)
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        assert len(convolutions) == 3
        assert all(f"_group_count = {groups}" in line for line in convolutions)
    assert f"_group_count = {groups}" not in traced.lower(lowering_platforms=("cpu",)).as_text()


def test_another_number_of_channels_gets_jaxs_error():
    with pytest.raises(ValueError, match="feature_group_count"):
        ops.conv_general_dilated(jnp.ones((2, 8, 8, 6)), jnp.ones((3, 3, 2, 6)), (1, 1), "SAME", feature_group_count=2)


def test_second_derivatives_are_those_of_jax():
    x, kernel = (array.astype(jnp.float32) / 7 for array in arrays((2, 5, 8, 4), (3, 3, 1, 4)))

    def second(convolution):
        def loss(kernel):
            out = convolution(
                x, kernel, (1, 1), ((1, 1), (1, 1)), feature_group_count=4, dimension_numbers=grouped.AXES
            )
            return jnp.sum(jnp.sin(out))

        return jax.grad(lambda kernel: jnp.sum(jnp.sin(jax.grad(loss)(kernel))))(kernel)

    expected, got = (np.asarray(second(each)) for each in (lax.conv_general_dilated, ops.conv_general_dilated))
    assert relative_error(got, expected) <= tolerance("parameter gradient", "float32")
