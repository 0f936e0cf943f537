"""Every block, network and layer, forward and backward, under the settings of JAX that people switch on."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from flax_attn import layers, ops

from .every import EVERY, LAYERS, differentiated


def traced(one, mode, **options):
    """The shapes and dtypes of outputs, buffers and gradients: promotion is decided where a program is traced."""

    def run(inputs):
        module = one.build(nnx.Rngs(0), **options)
        getattr(module, mode)()
        return differentiated(module, one, inputs)

    return jax.eval_shape(run, one.inputs)


def test_every_layer_is_here():
    assert {layer.name.split(",")[0] for layer in LAYERS} == {
        name for name, value in vars(layers).items() if isinstance(value, type) and issubclass(value, nnx.Module)
    }


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_nothing_is_promoted_and_64_bit_mode_alone_makes_nothing_float64(one, mode):
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"), jax.enable_x64(True):
        leaves = jax.tree.leaves(traced(one, mode))
    assert {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)} == {jnp.dtype("float32")}


NARROW = [
    {"dtype": "bfloat16"},
    {"dtype": "bfloat16", "param_dtype": "bfloat16"},
    {"dtype": "float32", "param_dtype": "bfloat16"},
]


# One case of each class.
@pytest.mark.parametrize("one", [one for one in EVERY if "," not in one.name], ids=lambda one: one.name)
@pytest.mark.parametrize("options", NARROW, ids=str)
def test_dtypes_that_are_asked_for_are_no_promotion(one, options):
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        traced(one, "train", **options)


# These are made of other classes, as networks are; and a case differs little from the first one of its class.
COMPOSED = ("CBAM", "ConvMultiHeadAttention", "MultiHeadAttention", "SpatialGate", "UseAttentionModel")


def is_new(one):
    return not ("," in one.name or one.name in COMPOSED or one.folder.startswith("networks") or one.is_collected)


@pytest.mark.parametrize(
    "one", [pytest.param(one, id=one.name, marks=[] if is_new(one) else [pytest.mark.nightly]) for one in EVERY]
)
def test_no_operation_makes_a_nan(one):
    # Outside of jit, every operation is checked by itself.
    with jax.debug_nans(True), jax.default_prng_impl("rbg"):
        differentiated(one.build(nnx.Rngs(0)), one, [x if x is None else jnp.asarray(x) for x in one.inputs])


@pytest.mark.parametrize("hidden", ["mask", "bias"])
def test_hidden_keys_make_no_nan(hidden):
    masks = {"mask": jnp.zeros((1, 1, 3, 3), bool), "bias": jnp.where(jnp.tri(3) == 1, 0, -jnp.inf)[None, None]}

    def attend(x):
        return ops.dot_product_attention(x, x, x, temperature=1.0, **{hidden: masks[hidden]})[0].sum()

    with jax.debug_nans(True):
        jax.grad(attend)(jnp.ones((1, 3, 1, 4)))


def test_the_settings_do_fail_what_relies_on_promotion():
    row, narrow, negative = jnp.ones(3), jnp.ones(3, "bfloat16"), -jnp.ones(3)
    with jax.numpy_rank_promotion("raise"), pytest.raises(ValueError, match="could not be broadcast"):
        jnp.add(row[None], row)
    with jax.numpy_dtype_promotion("strict"), pytest.raises(ValueError, match="no available implicit dtype promotion"):
        jnp.add(narrow, row)
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        jnp.log(negative)


@pytest.mark.parametrize("function", [ops.add, ops.multiply])
def test_sums_and_products_say_how_they_promote(function):
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        out = function(jnp.full((2, 3), 3, "bfloat16"), jnp.full(3, 2, "float32"))
    assert (out.dtype, out.shape) == (jnp.float32, (2, 3))
    assert out[0, 0] == {ops.add: 5, ops.multiply: 6}[function]
