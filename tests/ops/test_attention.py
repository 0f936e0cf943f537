"""Attention as functions of arrays: dtypes of scores, masks that hide, rows without a key."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import export
from jax.extend.core import jaxprs_in_params
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from scipy.stats import binomtest
from torch.nn import functional as F

from flax_attn.ops import attention, blocked
from flax_attn.ops.dropout import DropoutDraw, keep_mask
from flax_attn.testing import relative_error, tolerance
from flax_attn.testing.tolerances import P_VALUE

NARROW = [jnp.float16, jnp.bfloat16]


def heads(dtype=np.float64, seed=0):
    """Query, key and value for 5 queries, 7 keys, 3 heads."""
    rng = np.random.default_rng(seed)
    shapes = [(2, 5, 3, 11), (2, 7, 3, 11), (2, 7, 3, 13)]
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def test_softmax_of_float64_stays_float64():
    # jax.nn.dot_product_attention takes it in float32 whatever it is given; that would show here.
    with jax.enable_x64(True):
        query, key, value = heads()
        out, weights = attention.dot_product_attention(query, key, value, temperature=2.5)
    assert (out.dtype, weights.dtype) == (jnp.float64, jnp.float64)
    q, k, v = (torch.tensor(np.asarray(x)).transpose(1, 2) for x in (query, key, value))
    expected = F.scaled_dot_product_attention(q, k, v, scale=1 / 2.5).transpose(1, 2).numpy()
    assert relative_error(np.asarray(out), expected) <= tolerance("output", "float64")


def test_the_third_implementation_of_jax_agrees_in_float32():
    query, key, value = heads(np.float32)
    value = value[..., :11]  # all heads are of one size there
    out, _ = attention.dot_product_attention(query, key, value, temperature=2.5, precision="highest")
    with jax.default_matmul_precision("highest"):
        expected = jax.nn.dot_product_attention(query, key, value, scale=1 / 2.5)
    assert relative_error(np.asarray(out), np.asarray(expected)) <= tolerance("output", "float32")


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_floats_are_masked_without_overflow(dtype):
    # float16 cannot hold -1e9: as a score it would be -inf, and a row of them NaN.
    query, key, value = heads(dtype)
    mask = jnp.ones((2, 1, 5, 7), bool).at[0, 0, 0].set(False)
    out, weights = attention.dot_product_attention(query, key, value, temperature=2.5, mask=mask)
    assert (out.dtype, weights.dtype) == (dtype, dtype)
    assert bool(jnp.isfinite(out).all())
    np.testing.assert_array_equal(weights[0, :, 0], np.full((3, 7), jnp.asarray(1 / 7, dtype)))


@pytest.mark.parametrize("dtype", NARROW)
def test_scores_of_narrow_floats_are_float32(dtype):
    assert attention.score_dtype(dtype) == jnp.float32
    # 300 * 300 is more than float16 holds.
    one = jnp.full((1, 1, 1, 1), 300, dtype)
    out, _ = attention.dot_product_attention(
        one, jnp.concatenate([one, -one], 1), jnp.stack([one[0], -one[0]], 1), temperature=1.0
    )
    np.testing.assert_array_equal(out, one)


@pytest.mark.parametrize("mask", [[1, 0, 1], [True, False, True], [2, 0, -1]])
def test_zero_hides_and_anything_else_does_not(mask):
    weights = attention.attention_weights(jnp.zeros((1, 3)), jnp.array([mask]))
    np.testing.assert_array_equal(weights, [[0.5, 0, 0.5]])


def test_a_row_without_a_key_is_uniform_and_its_gradient_finite():
    scores = jnp.array([[3.0, 1.0, -2.0, 0.5]])
    weights, gradient = jax.value_and_grad(lambda s: attention.attention_weights(s, jnp.zeros((1, 4), bool))[0, 0])(
        scores
    )
    np.testing.assert_array_equal(weights, 0.25)
    np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


def test_the_score_of_a_hidden_key_is_minus_1e9():
    # A key whose own score is just that gets the same weight as a hidden one, and one above it all of the weight.
    with jax.enable_x64(True):
        scores = jnp.array([[-1e9, 5.0], [-1e9 + 1e3, 5.0]])
        weights = attention.attention_weights(scores, jnp.array([[1, 0], [1, 0]]))
    np.testing.assert_array_equal(weights, [[0.5, 0.5], [1.0, 0.0]])


def test_weights_fn_changes_the_weights_that_are_applied_and_returned():
    query, key, value = heads(np.float32)
    plain, weights = attention.dot_product_attention(query, key, value, temperature=1.0)
    doubled, twice = attention.dot_product_attention(query, key, value, temperature=1.0, weights_fn=lambda w: 2 * w)
    np.testing.assert_array_equal(twice, 2 * weights)
    np.testing.assert_array_equal(doubled, 2 * plain)


def test_additive_scores_go_through_one_score_function():
    with jax.enable_x64(True):
        query, key = jnp.array([[[0.0]]]), jnp.array([[[0.0], [np.arctanh(0.5)]]])
        out, weights = attention.additive_attention(
            query, key, jnp.array([[[4.0], [8.0]]]), lambda hidden: 2 * np.log(3.0) * hidden
        )
    # Scores 0 and log 3.
    assert relative_error(np.asarray(weights), np.array([[[0.25, 0.75]]])) <= tolerance("map", "float64")
    assert relative_error(np.asarray(out), np.array([[[7.0]]])) <= tolerance("output", "float64")


def additive(query, key, value, vector, bias=None, mask=None, need_weights=False):
    return attention.additive_attention(
        query,
        key,
        value,
        lambda hidden: jnp.matmul(hidden, vector, precision="highest"),
        mask=mask,
        bias=bias,
        need_weights=need_weights,
        precision="highest",
    )


@pytest.mark.parametrize("most", [1, 8], ids="at most {} queries".format)
@pytest.mark.parametrize(
    ("axes", "need_weights"),
    [(None, False), ((2, 23, 17), False), ((2, 1, 17), False), ((1, 23, 17), True), (None, True)],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_additive_attention_in_blocks_is_that_of_all_queries_at_once(monkeypatch, dtype, axes, most, need_weights):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        arrays = [rng.standard_normal(shape) for shape in [(2, 23, 3), (2, 17, 3), (2, 17, 5), (3, 1)]]
        arrays += [rng.standard_normal(axes)] if axes else []
        keep = rng.standard_normal(axes) < 1 if axes else None
        cotangent = rng.standard_normal((2, 23, 5))

        def attend(dtype, scores):
            monkeypatch.setattr(attention, "CPU_SCORES", scores)

            def loss(arrays):
                out, weights = additive(*arrays, mask=keep, need_weights=need_weights)
                summed = jnp.sum(jnp.sin(weights)) if need_weights else 0
                return jnp.sum(out * cotangent) + summed, (out, weights)

            gradients, results = jax.jit(jax.grad(loss, has_aux=True))([jnp.asarray(x, dtype) for x in arrays])
            return [np.asarray(x) for x in (*results, *gradients) if x is not None]

        whole, parts = attend("float64", 2**30), attend(dtype, most * 2 * 17 * 3)
    assert len(whole) == len(parts) == 1 + need_weights + len(arrays)
    for place, (got, expected) in enumerate(zip(parts, whole, strict=True)):
        assert got.dtype == dtype
        assert relative_error(got, expected) <= tolerance("input gradient" if place else "output", dtype)


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2)])
def test_additive_attention_takes_no_images_and_no_queries(shape):
    key = jnp.ones((shape[0], 4, 2))
    assert additive(jnp.ones(shape), key, key, jnp.ones((2, 1)))[0].shape == shape


def test_memory_of_additive_attention_is_linear_without_weights():
    def temporary(n):
        x = jax.ShapeDtypeStruct((1, n, 16), jnp.float32)
        vector = jnp.ones((16, 1))
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(additive(x, x, x, vector)[0])))
        return gradient.lower(x).compile().memory_analysis().temp_size_in_bytes

    assert temporary(4096) < 1.5 * 4 * temporary(1024)
    assert temporary(4096) < 4096 * 4096 * 4  # the weights alone


@pytest.mark.parametrize("shape", [(2, 1, 5, 7), (2, 3, 5, 7), (1, 1, 1, 7), (1, 3, 1, 1)])
def test_masks_that_fit(shape):
    attention.check_mask(jnp.ones(shape, bool), jnp.ones(shape), (2, 3, 5, 7), "b, heads, n_query, n_key")


@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7), (2, 1, 7, 5), (3, 1, 5, 7), (2, 1, 5, 7, 1), ()])
@pytest.mark.parametrize("argument", ["mask", "bias"])
def test_masks_that_do_not(argument, shape):
    expected = f"{argument} must have shape (b, heads, n_query, n_key)=(2, 3, 5, 7), axes of size 1 allowed, got "
    with pytest.raises(ValueError, match=re.escape(f"{expected}{shape}")):
        attention.check_mask(
            **{"mask": None, "bias": None, argument: jnp.ones(shape)},
            shape=(2, 3, 5, 7),
            layout="b, heads, n_query, n_key",
        )


ADDED = [[0.0, -np.inf, 0.0], [0.0, -1e9, 0.0], [0.0, np.nan, 0.0], [1.0, 0.0, 1.0]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
@pytest.mark.parametrize("values", ADDED)
def test_a_mask_of_floats_may_hide_or_be_added_and_is_refused(values, dtype):
    # PyTorch's generate_square_subsequent_mask, taken as "0 hides", would show each query the future alone.
    mask = jnp.array([values]).astype(dtype)
    one, head = jnp.ones((1, 3, 2)), jnp.ones((1, 3, 1, 2))
    attend = jax.jit(partial(attention.dot_product_attention, temperature=1.0))
    message = rf"mask must be of booleans or integers, 0 hides a key, got {dtype}: pass mask.astype\(bool\) .* bias="
    with pytest.raises(ValueError, match=message):
        attention.attention_weights(jnp.zeros((1, 3)), mask)
    with pytest.raises(ValueError, match=message):
        attend(head[:, :1], head, head, mask=mask[None, None])
    with pytest.raises(ValueError, match=message):
        attention.additive_attention(one[:, :1], one, one, lambda hidden: hidden[..., :1], mask=mask[None])


@pytest.mark.parametrize("dtype", [bool, "int32", "uint8"])
def test_a_bias_of_truths_is_a_mask_and_refused(dtype):
    with pytest.raises(ValueError, match=rf"bias must be of floats, added .*, got {jnp.dtype(dtype)}: pass mask="):
        attention.attention_weights(jnp.zeros((1, 3)), None, jnp.ones((1, 3), dtype))


@pytest.mark.parametrize("low", [-np.inf, -1e9])
def test_an_additive_mask_hides_as_a_bias(low):
    scores = jnp.array([[2.0, 1.0, 3.0]])
    weights = attention.attention_weights(scores, None, jnp.array([[0.0, low, 0.0]]))
    expected = attention.attention_weights(scores, jnp.array([[True, False, True]]))
    np.testing.assert_array_equal(weights, expected)


def test_a_mask_goes_before_a_bias():
    weights = attention.attention_weights(jnp.zeros((1, 3)), jnp.array([[1, 0, 1]]), jnp.array([[0.0, 1e9, np.log(3)]]))
    assert relative_error(np.asarray(weights), np.array([[0.25, 0, 0.75]])) <= tolerance("map", "float32")


BLOCK = 7  # each side of a block in these tests


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of at most 7 queries and 7 keys, for a batch of 2 and 3 heads, in which tiny inputs are taken."""
    monkeypatch.setattr(attention, "CPU_SCORES", 2 * 3 * BLOCK**2)
    monkeypatch.setattr(attention, "PLAIN_QUERIES", 0)
    monkeypatch.setattr(blocked, "SMALLEST_BLOCK", 2)


def both(function):
    """What ``function`` of an implementation computes with the plain form and in blocks."""
    return [jax.tree.map(np.asarray, function(name)) for name in ("plain", "blocked")]


# Broadcast axes of masks and biases are left out of the sum over blocks in turn.
MASKS = [
    (None, None),
    ((2, 1, 23, 17), (1, 1, 1, 17)),
    ((2, 3, 1, 17), (1, 3, 23, 17)),
    ((1, 1, 1, 17), (2, 1, 23, 17)),
    (None, (2, 3, 1, 17)),
    ((2, 1, 23, 1), (1, 1, 1, 17)),
]


@pytest.mark.parametrize(("mask", "bias"), MASKS, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_blocks_give_the_plain_form_and_its_gradients(small_blocks, dtype, mask, bias):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        arrays = [rng.standard_normal(shape) for shape in [(2, 23, 3, 11), (2, 17, 3, 11), (2, 17, 3, 5)]]
        arrays += [] if bias is None else [rng.standard_normal(bias)]
        keep = None if mask is None else (rng.standard_normal(mask) < 0.3)
        cotangent = rng.standard_normal((2, 23, 3, 5))

        def attend(implementation):
            precise = "float64" if implementation == "plain" else dtype

            def loss(arrays):
                out, _ = attention.dot_product_attention(
                    *arrays[:3],
                    temperature=2.5,
                    mask=keep,
                    bias=arrays[3] if bias else None,
                    need_weights=False,
                    precision="highest",
                    implementation=implementation,
                )
                return jnp.sum(out * cotangent), out

            gradients, out = jax.jit(jax.grad(loss, has_aux=True))(
                [jnp.asarray(x, dtype).astype(precise) for x in arrays]
            )
            assert out.dtype == precise
            return out, *gradients

        whole, parts = both(attend)
    for quantity, got, expected in zip(["output", *["input gradient"] * len(arrays)], parts, whole, strict=True):
        assert relative_error(got, expected) <= tolerance(quantity, dtype)


def other_mask(key, rate, shape):
    """A mask that is not the default's."""
    return ~keep_mask(key, 1 - rate, shape)


def dropped_attention(implementation, arrays, draw, **given):
    """The output, and the gradients for the cosine of it."""

    def loss(arrays):
        out, _ = attention.dot_product_attention(
            *arrays,
            temperature=2.5,
            weights_fn=draw,
            need_weights=False,
            precision="highest",
            implementation=implementation,
            **given,
        )
        return jnp.sum(jnp.sin(out)), out

    gradients, out = jax.jit(jax.grad(loss, has_aux=True))(arrays)
    return out, *gradients


@pytest.mark.parametrize(
    ("keep", "kind"),
    [(keep_mask, "threefry2x32"), (keep_mask, "rbg"), (other_mask, "threefry2x32")],
    ids=["drawn in blocks", "drawn by another generator", "given"],
)
@pytest.mark.parametrize(("rate", "hidden"), [(0.25, True), (0.9, False)], ids=["with mask and bias", ""])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_blocks_drop_what_the_plain_form_drops(small_blocks, dtype, rate, keep, kind, hidden):
    rng = np.random.default_rng(0)
    draw = DropoutDraw(jax.random.key(5, impl=kind), rate, keep)
    with jax.enable_x64(True):
        arrays = [jnp.asarray(rng.standard_normal((2, n, 3, d)), dtype) for n, d in ((23, 11), (17, 11), (17, 5))]
        given = {}
        if hidden:
            given["mask"] = jnp.asarray(rng.standard_normal((2, 1, 23, 17)) < 1)
            given["bias"] = jnp.asarray(rng.standard_normal((1, 3, 1, 17)), dtype)
        whole = dropped_attention("plain", [x.astype("float64") for x in arrays], draw, **given)
        parts = dropped_attention("blocked", arrays, draw, **given)
    for quantity, got, expected in zip(["output", *["input gradient"] * 3], parts, whole, strict=True):
        assert got.dtype == dtype
        assert relative_error(np.asarray(got), np.asarray(expected)) <= tolerance(quantity, dtype)


def test_blocks_keep_the_share_that_dropout_should_and_scale_it(small_blocks):
    """With equal weights and a one-hot value for each key the outputs are the weights."""
    query, key = jnp.zeros((2, 101, 3, 4)), jnp.zeros((2, 97, 3, 4))
    value = jnp.broadcast_to(jnp.eye(97)[:, None], (2, 97, 3, 97))
    weights, *_ = dropped_attention("blocked", [query, key, value], DropoutDraw(jax.random.key(0), 0.3))
    kept = np.asarray(weights) > 0
    assert binomtest(int(kept.sum()), kept.size, 0.7).pvalue > P_VALUE
    scaled = np.where(kept, 1 / (97 * 0.7), 0)
    assert relative_error(np.asarray(weights), scaled) <= tolerance("map", "float32")


def test_a_rate_of_one_drops_all_weights():
    x = jnp.ones((1, 70, 1, 2))
    draw = DropoutDraw(jax.random.key(0), 1.0)
    out, gradient, *_ = dropped_attention(None, [x, x, x], draw)
    np.testing.assert_array_equal(out, jnp.zeros_like(x))
    np.testing.assert_array_equal(gradient, jnp.zeros_like(x))


def test_memory_is_linear_in_the_tokens_with_dropout():
    def temporary(n):
        x = jax.ShapeDtypeStruct((1, n, 2, 8), jnp.float32)
        draw = DropoutDraw(jax.random.key(0), 0.3)

        def gradient(x):
            return dropped_attention(None, [x, x, x], draw)

        return jax.jit(gradient).lower(x).compile().memory_analysis().temp_size_in_bytes

    assert temporary(8192) < 1.1 * 4 * temporary(2048)
    assert temporary(8192) < 8192 * 8192  # a mask of one head


@pytest.mark.parametrize("length", [1, 6, 7, 8, 13, 14, 31])
def test_blocks_of_any_number_of_queries_and_keys(small_blocks, length):
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.standard_normal((2, n, 3, 4)), np.float32) for n in (length, 11))
    for query, key in ((x, y), (y, x)):
        whole, parts = both(
            lambda name, query=query, key=key: attention.dot_product_attention(
                query, key, key, temperature=1.0, need_weights=False, precision="highest", implementation=name
            )[0]
        )
        assert relative_error(parts, whole) <= tolerance("output", "float32")


HIDDEN = {
    "no key visible": ("mask", [0] * 17, None),
    "scores below those of hidden keys": ("mask", [1] * 9 + [0] * 8, -2e9),
    "a block of keys at minus infinity": ("bias", [0] * 8 + [1] * 9, -np.inf),
    "all keys at minus infinity": ("bias", [0] * 17, -np.inf),
    "a NaN": ("bias", [1] * 16 + [0], np.nan),
    "infinity": ("bias", [1] * 16 + [0], np.inf),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_blocks_hide_keys_like_the_plain_form(small_blocks, case):
    kind, keys, low = HIDDEN[case]
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal((2, n, 3, 5)), np.float32) for n in (23, 17, 17)]
    # In one example of two.
    keep = np.stack([np.array(keys, bool), np.ones(17, bool)])[:, None, None]
    mask = jnp.asarray(keep) if kind == "mask" else None
    bias = None if low is None else jnp.where(keep if kind == "bias" else ~keep, 0.0, low)

    def attend(implementation):
        def loss(arrays):
            out, _ = attention.dot_product_attention(
                *arrays, temperature=2.0, mask=mask, bias=bias, need_weights=False, implementation=implementation
            )
            return jnp.sum(jnp.sin(out)), out

        gradients, out = jax.jit(jax.grad(loss, has_aux=True))(arrays)
        return out, *gradients

    whole, parts = both(attend)
    assert np.isnan(whole[0]).any() == (case in ("all keys at minus infinity", "a NaN", "infinity"))
    for got, expected in zip(parts, whole, strict=True):
        got, expected, finite = np.asarray(got), np.asarray(expected), np.isfinite(expected)
        np.testing.assert_array_equal(got[~finite], expected[~finite])
        if finite.any():
            assert relative_error(got[finite], expected[finite]) <= tolerance("input gradient", "float32")


@pytest.mark.parametrize("dtype", NARROW)
def test_blocks_of_narrow_floats_are_as_accurate_as_the_plain_form(small_blocks, dtype):
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.standard_normal((2, n, 3, 8)), dtype) for n in (23, 17, 17))
    exact, _ = attention.dot_product_attention(*(x.astype("float32") for x in (query, key, value)), temperature=2.5)

    def attend(implementation):
        return attention.dot_product_attention(
            query, key, value, temperature=2.5, need_weights=False, implementation=implementation
        )[0]

    whole, parts = both(lambda name: attend(name).astype("float32"))
    assert attend("blocked").dtype == dtype
    assert relative_error(parts, np.asarray(exact)) <= relative_error(whole, np.asarray(exact))


def test_blocks_have_gradients_of_gradients_and_vmap(small_blocks):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        query, key = (jnp.asarray(rng.standard_normal((3, 2, n, 3, 4))) for n in (9, 11))

        def attend(implementation):
            def loss(query, key):
                out, _ = attention.dot_product_attention(
                    query, key, key, temperature=1.0, need_weights=False, implementation=implementation
                )
                return jnp.sum(jnp.sin(out))

            def slope(query, key):
                return jnp.sum(jnp.cos(jax.grad(loss)(query, key)))

            return jax.jit(jax.vmap(jax.grad(slope, argnums=(0, 1))))(query, key)

        whole, parts = both(attend)
    for got, expected in zip(parts, whole, strict=True):
        assert relative_error(got, expected) <= tolerance("input gradient", "float64")


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_arrays_that_are_spread_by_hand_have_gradients(kind):
    """With keys that all devices share; the types of arrays are the same on one device."""
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(kind,))

    def gradient(query, key):
        def loss(key):
            return jnp.sum(
                jnp.sin(attention.dot_product_attention(query, key, key, temperature=1.0, need_weights=False)[0])
            )

        return jax.grad(loss)(key)

    query, key = (jnp.asarray(np.random.default_rng(seed).normal(size=(2, 70, 3, 5)), jnp.float32) for seed in (0, 1))
    spread = NamedSharding(mesh, P("batch"))
    by_hand = jax.shard_map(gradient, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P())
    with jax.set_mesh(mesh):
        got = jax.jit(by_hand if kind == AxisType.Auto else gradient)(jax.device_put(query, spread), key)
    expected = np.asarray(gradient(query, key))
    assert relative_error(np.asarray(got), expected) <= tolerance("input gradient", "float32")


@pytest.mark.parametrize("shape", [(0, 70, 3, 5), (2, 70, 3, 5)])
def test_no_images_or_no_keys_at_all_are_taken(shape):
    query, key = jnp.ones(shape), jnp.ones((shape[0], 0 if shape[0] else 3, 3, 5))
    out, _ = attention.dot_product_attention(query, key, key, temperature=1.0, need_weights=False)
    assert out.shape == shape


def test_a_temperature_of_numpys_widens_nothing():
    with jax.enable_x64(True):
        x = jnp.ones((1, 70, 1, 2), jnp.float32)

        def loss(x):
            return jnp.sum(attention.dot_product_attention(x, x, x, temperature=np.sqrt(8), need_weights=False)[0])

        assert jax.grad(loss)(x).dtype == jnp.float32


def test_forward_mode_is_the_plain_forms():
    x = jnp.ones((1, 70, 1, 2))

    def attend(implementation):
        return lambda x: attention.dot_product_attention(
            x, x, x, temperature=1.0, need_weights=False, implementation=implementation
        )[0]

    tangent = np.asarray(jax.jvp(attend("plain"), [x], [x])[1])
    assert relative_error(tangent, np.asarray(x)) <= tolerance("output", "float32")
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(attend("blocked"), [x], [x])


def choice(implementation=None, dtype="float32", size=8, n=65, **given):
    query = key = value = jax.ShapeDtypeStruct((2, n, 4, size), dtype)
    given = {"weights_used": False, "masked": False, "platform": "cpu", **given}
    return attention.choose_implementation(implementation, query, key, value, **given)


SYMBOL = export.symbolic_shape("n")[0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "blocked"),
        ({"masked": True}, "blocked"),
        ({"dropped": True}, "blocked"),
        ({"n": 64}, "plain"),
        ({"n": SYMBOL}, "plain"),
        ({"weights_used": True}, "plain"),
        ({"dtype": "complex64"}, "plain"),
        ({"platform": "gpu"}, "plain"),
        ({"platform": "gpu", "n": 2**12}, "blocked"),
        ({"platform": "tpu", "n": 2**12}, "blocked"),
        ({"implementation": "plain"}, "plain"),
        ({"implementation": "blocked", "n": 1}, "blocked"),
        ({"implementation": "cudnn", "platform": "gpu", "dtype": "bfloat16"}, "cudnn"),
        ({"implementation": "cudnn", "platform": "gpu", "dtype": "float16", "size": 128}, "cudnn"),
    ],
    ids=str,
)
def test_the_form_is_chosen_by_platform_and_shape(given, expected):
    assert choice(**given) == expected


@pytest.mark.parametrize(
    "given", [{"n": SYMBOL}, {"weights_used": True}, {"dtype": "complex64"}, {"dtype": "int32"}], ids=str
)
def test_blocks_that_cannot_be(given):
    with pytest.raises(ValueError, match=r"implementation='blocked' needs floats, .*; got query .*on cpu"):
        choice("blocked", **given)


@pytest.mark.parametrize(
    "given",
    [
        {"platform": "cpu"},
        {"platform": "tpu"},
        {"dtype": "float32"},
        {"size": 12},
        {"size": 136},
        {"n": SYMBOL},
        {"weights_used": True},
        {"masked": True},
    ],
    ids=str,
)
def test_what_cudnn_needs(given):
    with pytest.raises(ValueError, match=r"implementation='cudnn' needs a GPU, bfloat16 or float16, .*; got query"):
        choice("cudnn", **{"platform": "gpu", "dtype": "bfloat16", **given})


def test_an_implementation_is_one_of_three():
    with pytest.raises(
        ValueError, match="implementation must be one of None, 'plain', 'blocked', 'cudnn', got 'flash'"
    ):
        choice("flash")


def test_memory_grows_with_the_tokens_not_their_square():
    def temporary(n):
        x = jax.ShapeDtypeStruct((4, n, 4, 8), jnp.float32)

        def loss(query, key, value):
            return jnp.sum(attention.dot_product_attention(query, key, value, temperature=1.0, need_weights=False)[0])

        program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile()
        return program.memory_analysis().temp_size_in_bytes

    small, large = temporary(2304), temporary(9216)
    assert large <= 64 * 2**20
    assert large <= 4**1.1 * small


def test_weights_fn_is_applied_to_many_queries_too():
    _, key, value = heads(np.float32)
    query = jnp.asarray(np.random.default_rng(0).standard_normal((2, 65, 3, 11)), np.float32)
    plain, _ = attention.dot_product_attention(query, key, value, temperature=1.0)
    doubled, weights = attention.dot_product_attention(
        query, key, value, temperature=1.0, weights_fn=lambda w: 2 * w, need_weights=False
    )
    np.testing.assert_array_equal(doubled, 2 * plain)
    assert weights is None


def test_arrays_may_be_named_and_options_have_to_be():
    query, key, value = heads(np.float32)
    named, _ = attention.dot_product_attention(value=value, key=key, query=query, temperature=2.0)
    np.testing.assert_array_equal(named, attention.dot_product_attention(query, key, value, temperature=2.0)[0])
    with pytest.raises(TypeError, match="positional"):
        attention.dot_product_attention(query, key, value, 2.0)
    one = jnp.ones((1, 1, 1))
    named, _ = attention.additive_attention(score_fn=lambda hidden: hidden, value=3 * one, key=one, query=one)
    np.testing.assert_array_equal(named, 3 * one)
    with pytest.raises(TypeError, match="positional"):
        attention.additive_attention(one, one, one, lambda hidden: hidden, None)


def largest_array(jaxpr):
    inner = [getattr(sub, "jaxpr", sub) for equation in jaxpr.eqns for sub in jaxprs_in_params(equation.params)]
    sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
    return max([0, *sizes, *map(largest_array, inner)])


@pytest.mark.parametrize("need_weights", [False, True])
def test_without_need_weights_there_is_no_array_of_all_queries_and_keys(need_weights):
    n = 1000  # whatever is kept of each block is one array in the end
    query, key = jnp.ones((2, n, 3, 2)), jnp.ones((2, 710, 3, 2))

    def loss(query, key):
        out, _ = attention.dot_product_attention(query, key, key, temperature=1.0, need_weights=need_weights)
        return jnp.sum(jnp.sin(out))

    largest = largest_array(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(query, key).jaxpr)
    assert (largest >= 2 * 3 * n * 710) == need_weights
