"""The traced program does not grow with heads, pixels or channels: nothing is repeated for each of them."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

import flax_attn
from flax_attn.networks import patch

# Both have more pixels than attention takes at once.
SIZES = ({"heads": 2, "h": 8, "w": 20, "c": 8}, {"heads": 7, "h": 12, "w": 24, "c": 28})

BLOCKS = {
    "ScaledDotProductAttention": lambda heads, h, w, c: (
        flax_attn.ScaledDotProductAttention(2.0, rngs=nnx.Rngs(0)),
        [(2, h * w, heads, c)] * 3,
    ),
    "MultiHeadAttention": lambda heads, h, w, c: (
        flax_attn.MultiHeadAttention(heads, c, 3, 5, rngs=nnx.Rngs(0)),
        [(2, h * w, c)] * 3,
    ),
    "AdditiveAttention": lambda heads, h, w, c: (
        flax_attn.AdditiveAttention(c, c, c, rngs=nnx.Rngs(0)),
        [(2, h * w, c)] * 3,
    ),
    "ConvAttention": lambda heads, h, w, c: (
        flax_attn.ConvAttention(c, c, c, c, rngs=nnx.Rngs(0)),
        [(2, h, w, c)] * 2,
    ),
    "ConvMultiHeadAttention": lambda heads, h, w, c: (
        flax_attn.ConvMultiHeadAttention(c, c, c, c, heads, rngs=nnx.Rngs(0)),
        [(2, h, w, c)] * 2,
    ),
    "CBAM": lambda heads, h, w, c: (
        flax_attn.CBAM(c, 4, ("avg", "max", "lp", "lse"), no_spatial=False, rngs=nnx.Rngs(0)),
        [(2, h, w, c)],
    ),
    "UseAttentionModel": lambda heads, h, w, c: (
        flax_attn.UseAttentionModel(c, 4, rngs=nnx.Rngs(0)),
        [(2, h, w, c)],
    ),
    "SpatialAttentionModule": lambda heads, h, w, c: (
        flax_attn.SpatialAttentionModule(rngs=nnx.Rngs(0)),
        [(2, h, w, c)],
    ),
    "PointwiseSpatialAttention": lambda heads, h, w, c: (
        flax_attn.PointwiseSpatialAttention(c, rngs=nnx.Rngs(0)),
        [(2, h, w, c)],
    ),
    "SinePositionEncoding2d": lambda heads, h, w, c: (
        flax_attn.SinePositionEncoding2d(c, rngs=nnx.Rngs(0)),
        [(2, h, w, c)],
    ),
    "LearnedPositionEncoding2d": lambda heads, h, w, c: (
        flax_attn.LearnedPositionEncoding2d(h, w, c, rngs=nnx.Rngs(0)),
        [(2, h, w, c)],
    ),
    "NetMultiHeadAttention": lambda heads, h, w, c: (
        patch.NetMultiHeadAttention(position="sine", rngs=nnx.Rngs(0)),
        [(2, 4 * h, 4 * w, 3)],
    ),
}


def count_operations(jaxpr):
    """The equations of a program and of the programs inside it."""
    inner = [sub for equation in jaxpr.eqns for sub in jaxprs_in_params(equation.params)]
    return len(jaxpr.eqns) + sum(count_operations(getattr(sub, "jaxpr", sub)) for sub in inner)


def traced_operations(module, shapes):
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    def loss(params, inputs, rest):
        output = nnx.merge(graphdef, params, rest, copy=True)(*inputs)
        return jnp.sum(output[0] if isinstance(output, tuple) else output)

    inputs = [jnp.ones(shape) for shape in shapes]
    return count_operations(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(params, inputs, rest).jaxpr)


@pytest.mark.parametrize("name", BLOCKS)
def test_program_does_not_grow_with_the_sizes(name):
    small, large = (traced_operations(*BLOCKS[name](**sizes)) for sizes in SIZES)
    assert large == small


def test_the_count_sees_a_loop_over_heads():
    def looped(heads):
        return jax.make_jaxpr(lambda x: sum(jnp.sin(x[..., head]) for head in range(heads)))(jnp.ones((2, 7)))

    assert count_operations(looped(7).jaxpr) > count_operations(looped(2).jaxpr)


def largest_array(jaxpr):
    """The number of elements of the largest array that a program makes."""
    sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
    inner = [sub for equation in jaxpr.eqns for sub in jaxprs_in_params(equation.params)]
    return max([0, *sizes, *(largest_array(getattr(sub, "jaxpr", sub)) for sub in inner)])


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("name", ["ScaledDotProductAttention", "MultiHeadAttention", "ConvMultiHeadAttention"])
def test_no_array_of_queries_times_keys_is_made_unless_the_weights_are_needed(name, need_weights):
    n = 1009
    module, shapes = BLOCKS[name](heads=2, h=n, w=1, c=4)
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    # The commonest mask: some keys are padding.
    masks = {"ScaledDotProductAttention": (2, 1, 1, n), "MultiHeadAttention": (2, 1, n)}
    mask = {"mask": jnp.ones(masks[name], bool)} if name in masks else {}

    def loss(params, inputs, rest):
        return jnp.sum(nnx.merge(graphdef, params, rest, copy=True)(*inputs, need_weights=need_weights, **mask)[0])

    inputs = [jnp.ones(shape) for shape in shapes]
    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(params, inputs, rest).jaxpr
    assert (largest_array(jaxpr) >= n * n) is need_weights
