"""``dtype`` is that of the computation and its results, ``param_dtype`` that of the parameters, for every class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flax_attn import ops
from flax_attn.testing import tolerance
from flax_attn.testing.layouts import to_flax
from flax_attn.testing.results import leaves
from torch_ref.cases import CASES
from torch_ref.pairs import build

CLOSE = tolerance("output", "float32")
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def make(case, **options):
    return build(case, nnx.Rngs(0), **options)


def results(case, inputs=jnp.float32, **options):
    """The dtypes of what a case returns; probabilities of the patch networks, float32 always, left out."""
    arrays = [
        jnp.asarray(to_flax(np.ones(x.shape), x.layout, "input"), bool if x.kind == "mask" else inputs)
        for x in case.inputs
    ]
    output = jax.eval_shape(lambda *x: make(case, **options)(*x, **case.kwargs), *arrays)
    if case.module == "networks.patch" and isinstance(output, tuple):
        output = output[1]
    return {leaf.dtype.name for _, leaf in leaves(output)}


@every_case
def test_dtype_is_that_of_the_results(case):
    assert results(case, dtype="bfloat16") == {"bfloat16"}


@every_case
def test_without_dtype_inputs_and_parameters_decide(case):
    assert results(case, jnp.bfloat16, param_dtype="bfloat16") == {"bfloat16"}


@every_case
def test_param_dtype_is_that_of_the_parameters_and_not_of_the_results(case):
    module = nnx.eval_shape(lambda: make(case, dtype="float32", param_dtype="bfloat16"))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))} <= {"bfloat16"}
    assert results(case, dtype="float32", param_dtype="bfloat16") == {"float32"}


@every_case
def test_float64_stays_float64(case):
    with jax.enable_x64(True):
        assert results(case, jnp.float64, param_dtype="float64") == {"float64"}


@pytest.mark.parametrize(("dtype", "expected"), [(None, "float32"), (jnp.bfloat16, "bfloat16"), ("float16", "float16")])
def test_cast(dtype, expected):
    assert ops.cast(jnp.ones(3), dtype).dtype.name == expected


@pytest.mark.parametrize("combine", [ops.add, ops.multiply])
def test_the_gradient_of_what_is_broadcast_is_summed_in_float32(combine):
    x, y = jnp.ones((4001, 3), jnp.bfloat16), jnp.ones(3, jnp.bfloat16)
    cotangent = jnp.asarray(np.random.default_rng(0).standard_normal(x.shape), jnp.bfloat16)
    assert combine(x, y).dtype == jnp.bfloat16
    gradient = jax.grad(lambda y: jnp.sum((combine(x, y) * cotangent).astype(jnp.float32)))(y)
    # The true sum, rounded once.
    assert gradient.tolist() == np.asarray(cotangent, np.float64).sum(0).astype(jnp.bfloat16).tolist()


@pytest.mark.parametrize(("combine", "expected"), [(ops.add, [5.0, -3.25]), (ops.multiply, [6.0, 0.75])])
def test_sums_and_products(combine, expected):
    assert combine(jnp.array([2.0, -3.0], jnp.bfloat16), jnp.array([3.0, -0.25], jnp.bfloat16)).tolist() == expected


def test_a_softmax_and_its_gradient_are_rounded_once():
    x, cotangent = (jnp.asarray(np.random.default_rng(i).standard_normal((2, 301)), jnp.bfloat16) for i in (0, 1))
    wide = jnp.asarray(x, jnp.float32)
    expected, back = jax.vjp(lambda x: jax.nn.softmax(x, axis=1), wide)
    out, ours = jax.vjp(lambda x: ops.softmax(x, axis=1), x)
    np.testing.assert_array_equal(out, expected.astype(jnp.bfloat16))
    np.testing.assert_array_equal(ours(cotangent)[0], back(cotangent.astype(jnp.float32))[0].astype(jnp.bfloat16))
    assert (out != jax.nn.softmax(x, axis=1)).any()  # whose sum is rounded


def test_a_softmax_is_along_its_axis():
    out = ops.softmax(jnp.log(jnp.array([[1.0, 2.0], [3.0, 2.0]])), axis=0)
    np.testing.assert_allclose(out, [[0.25, 0.5], [0.75, 0.5]], rtol=CLOSE)
    assert jnp.isfinite(ops.softmax(jnp.array([[1e38, -1e38]]), axis=1)).all()


@pytest.mark.parametrize("combine", [ops.add, ops.multiply])
def test_the_wider_dtype_wins(combine):
    assert combine(jnp.ones(3, jnp.bfloat16), jnp.ones(3)).dtype == jnp.float32


def test_the_gradient_of_a_sigmoid_is_not_rounded_on_the_way():
    x = jnp.linspace(-6, 6, 101).astype(jnp.bfloat16)
    ours, truth = (jax.vmap(jax.grad(ops.sigmoid))(values).astype(jnp.float32) for values in (x, x.astype(jnp.float32)))
    assert (ours == truth.astype(jnp.bfloat16).astype(jnp.float32)).all()
