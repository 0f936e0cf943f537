"""The traced program does not grow with heads, pixels or channels: nothing is repeated for each of them."""

import inspect

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

import flax_attn
from flax_attn.networks import patch
from flax_attn.registry import BLOCKS

# Both maps have more pixels than attention takes at once.
SIZES = ({"heads": 2, "h": 16, "w": 24, "c": 32}, {"heads": 8, "h": 16, "w": 40, "c": 64})
# Their convolutions in groups take 32 channels at a time on CPUs, so these programs grow with the channels alone.
IN_PARTS = ("pyramid_split", "split_attention")
# The heads of class-specific residual attention are a few temperatures, with a classifier each.
HEADS = {
    "ufo": "h",
    **{
        entry.name: argument
        for entry in BLOCKS
        for argument in ("n_head", "num_heads")
        if argument in inspect.signature(entry.block.__init__).parameters and entry.name != "csra_multi_head"
    },
}
RNGS = nnx.Rngs(0)


def build_block(name):
    def build(heads, h, w, c):
        arguments = {HEADS[name]: heads} if name in HEADS else {}
        block = flax_attn.create_block(name, c, size=(h, w), rngs=RNGS, **arguments)
        return (lambda block, x: patch.self_attend(block, x)), block, [(2, h, w, c)]

    return build


def call(module, *inputs):
    output = module(*inputs)
    return output[0] if isinstance(output, tuple) else output


MODULES = {
    **{name: build_block(name) for name in flax_attn.list_blocks()},
    "ScaledDotProductAttention": lambda heads, h, w, c: (
        call,
        flax_attn.ScaledDotProductAttention(2.0, rngs=RNGS),
        [(2, h * w, heads, c)] * 3,
    ),
    "SinePositionEncoding2d": lambda heads, h, w, c: (
        call,
        flax_attn.SinePositionEncoding2d(c, rngs=RNGS),
        [(2, h, w, c)],
    ),
    "LearnedPositionEncoding2d": lambda heads, h, w, c: (
        call,
        flax_attn.LearnedPositionEncoding2d(h, w, c, rngs=RNGS),
        [(2, h, w, c)],
    ),
    "NetMultiHeadAttention": lambda heads, h, w, c: (
        call,
        patch.NetMultiHeadAttention(position="sine", rngs=RNGS),
        [(2, 4 * h, 4 * w, 3)],
    ),
}


def count_operations(jaxpr):
    """The equations of a program and of the programs inside it."""
    inner = [sub for equation in jaxpr.eqns for sub in jaxprs_in_params(equation.params)]
    return len(jaxpr.eqns) + sum(count_operations(getattr(sub, "jaxpr", sub)) for sub in inner)


def traced(function, module, shapes):
    """The program of the gradients of a module's parameters and inputs."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    def loss(params, inputs, rest):
        return jnp.sum(function(nnx.merge(graphdef, params, rest, copy=True), *inputs))

    inputs = [jnp.ones(shape) for shape in shapes]
    return jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(params, inputs, rest).jaxpr


@pytest.mark.parametrize("name", MODULES)
def test_program_does_not_grow_with_the_sizes(name):
    same = {"c": SIZES[0]["c"]} if name in IN_PARTS else {}
    small, large = (count_operations(traced(*MODULES[name](**sizes | same))) for sizes in SIZES)
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
@pytest.mark.parametrize("name", ["ScaledDotProductAttention", "multi_head", "conv_multi_head"])
def test_no_array_of_queries_times_keys_is_made_unless_the_weights_are_needed(name, need_weights):
    n, c = 1009, 4
    # The commonest mask: some keys are padding.
    calls = {
        "ScaledDotProductAttention": ([(2, n, 2, c)] * 3, {"mask": jnp.ones((2, 1, 1, n), bool)}),
        "multi_head": ([(2, n, c)] * 3, {"mask": jnp.ones((2, 1, n), bool)}),
        "conv_multi_head": ([(2, n, c)] * 2, {}),
    }
    shapes, kwargs = calls[name]
    _, module, _ = MODULES[name](heads=2, h=n, w=1, c=c)
    jaxpr = traced(lambda module, *x: module(*x, need_weights=need_weights, **kwargs)[0], module, shapes)
    assert (largest_array(jaxpr) >= n * n) is need_weights
