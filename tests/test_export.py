"""Every block, network and layer exports with a symbolic batch, and symbolic tokens or height and width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

import flax_attn
from flax_attn import layers
from flax_attn.testing import relative_error, tolerance

from .every import EVERY, differentiated

# Blocks of one array of tokens, behind which the mask comes.
SELF = ("SelfAttention", "DifferentialAttention")


def axes(one):
    """For each input, which axes are positions and not features: those that may be symbolic."""
    heads = one.name.startswith("ScaledDotProductAttention")
    tokens = 1 if one.name.startswith(SELF) else 3
    for place, x in enumerate(one.inputs):
        if place >= tokens:  # masks and biases
            yield [axis for axis, size in enumerate(x.shape) if size > 1 and not (x.ndim == 4 and axis == 1)]
        elif one.name == "Embedding":
            yield range(x.ndim)
        else:
            yield range(2 if heads else x.ndim - 1)


# Their tables have a row for each row and column of the map, their windows follow from its size, a stride cuts it into
# patches, of which JAX cannot tell that there are any, or a table or a smaller map is resized to it.
FIXED = (
    "LearnedPositionEncoding2d",
    "NetMultiHeadAttention, learned",
    "BottleneckAttention",
    "BottleneckAttention, stride",
    "HaloAttention",
    "HaloAttention, average pool",
    "HaloAttention, masked",
    "HaloAttention, stride",
    "LambdaLayer, of all",
    "OutlookAttention, stride",
    "ShiftedWindowAttention",
    "ShiftedWindowAttention, one axis",
    "SpatialReductionAttention",
    "WindowAttention",
    "WindowAttention, mask and bias",
    "AttentionPool2d",
    "BatNonLocal",
    "AttentionPool2d, map of another size",
    "MultiQueryAttention2d, strides",
)
# JAX cannot take the gradient of a convolution with a stride along an axis of a symbolic size.
STRIDED = (
    "BasicConv",
    "Conv",
    "GatherExcite, convolutions",
    "SpatialAttentionNeuralNetwork",
    "SpatialAttentionNeuralNetwork, other width",
)


def symbols(one, fixed=FIXED):
    """The inputs with symbols for sizes, the same for equal sizes; the patch networks halve their images twice."""
    image = one.folder == "networks.patch" and one.name not in fixed
    scope = export.SymbolicScope(["s22 >= 4", "s29 >= 4"] if image else [])
    for x, free in zip(one.inputs, axes(one), strict=True):
        free = [axis for axis in free if axis == 0] if one.name in fixed else free
        shape = ",".join(f"s{size}" if axis in free else str(size) for axis, size in enumerate(x.shape))
        yield jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), x.dtype)


def other_sizes(one):
    """Inputs of other sizes: each free axis is twice as long, so equal ones stay equal."""
    for x, free in zip(one.inputs, axes(one), strict=True):
        for axis in [0] if one.name in FIXED else free:
            x = np.repeat(x, 2, axis)
        yield jnp.asarray(x)


def functional(one):
    module = one.build(nnx.Rngs(0))
    module.eval()
    graphdef, state = nnx.split(module)

    def call(state, *inputs):
        return jax.tree.leaves(nnx.merge(graphdef, state, copy=True)(*inputs, **one.kwargs))

    return jax.jit(call), state


@pytest.mark.parametrize(
    "one", [pytest.param(one, id=one.name, marks=[pytest.mark.nightly] if one.is_collected else []) for one in EVERY]
)
def test_training_exports_with_symbolic_sizes(one):
    module = jax.eval_shape(lambda: one.build(nnx.Rngs(0)))
    graphdef, state = nnx.split(module)

    def train(state, *inputs):
        module = nnx.merge(graphdef, state, copy=True)
        return jax.tree.leaves(differentiated(module, one, inputs))

    exported = export.export(jax.jit(train))(state, *symbols(one, FIXED + STRIDED))
    assert not all(isinstance(size, int) for shape in exported.in_avals for size in shape.shape)


# A network, and another case of a class, goes through the same programs.
@pytest.mark.parametrize(
    "one",
    [
        pytest.param(
            one,
            id=one.name,
            marks=[pytest.mark.nightly]
            if "," in one.name or one.folder.startswith("networks") or one.is_collected
            else [],
        )
        for one in EVERY
    ],
)
def test_an_export_computes_the_same_for_other_sizes(one):
    call, state = functional(one)
    inputs = list(other_sizes(one))
    exported = export.export(call)(state, *symbols(one))
    for got, expected in zip(jax.jit(exported.call)(state, *inputs), call(state, *inputs), strict=True):
        assert relative_error(np.asarray(got), np.asarray(expected)) <= tolerance("output", "float32")


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_any_number_of_tokens(n):
    # From 65 on, queries and keys go in blocks; with a symbol for their number they do not.
    attention = flax_attn.MultiHeadAttention(2, 4, 2, 2, rngs=nnx.Rngs(0))
    attention.eval()
    graphdef, state = nnx.split(attention)
    call = jax.jit(lambda state, x: nnx.merge(graphdef, state, copy=True)(x, x, x)[0])
    tokens = jax.ShapeDtypeStruct(export.symbolic_shape("b, n, 4"), jnp.float32)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, n, 4)), jnp.float32)
    got, expected = export.export(call)(state, tokens).call(state, x), call(state, x)
    assert relative_error(np.asarray(got), np.asarray(expected)) <= tolerance("output", "float32")


def test_a_pool_that_rounds_up_names_what_it_cannot():
    image = jax.ShapeDtypeStruct(export.symbolic_shape("b, h, w, 3"), jnp.float32)
    with pytest.raises(ValueError, match="ceil_mode must be False for symbolic sizes, got x of shape"):
        export.export(jax.jit(layers.MaxPool(2, ceil_mode=True)))(image)


def test_symbols_that_differ_are_refused_as_sizes_that_do():
    attention = flax_attn.AdditiveAttention(4, 4, 5, rngs=nnx.Rngs(0))
    scope = export.SymbolicScope()
    query, key, value = (
        jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), jnp.float32)
        for shape in ("b, n, 4", "b, n, 4", "b, m, 4")
    )
    with pytest.raises(ValueError, match=r"value must have shape \(b=b, n_key=n, d_v\), got \(b, m, 4\)"):
        export.export(jax.jit(attention))(query, key, value)
