"""The points at which gradients are a convention: what they are there, by hand, and that PyTorch has the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn import ops
from flax_attn.networks.patch import ConvPart
from flax_attn.testing import relative_error, tolerance
from torch_ref.blocks import cbam, channel, dot_product
from torch_ref.networks import patch

INF, NAN = np.inf, np.nan
DTYPES = ("float64", "float32", "bfloat16")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
TO_TORCH, TO_FLAX = (0, 3, 1, 2), (0, 2, 3, 1)


def ours(function, *arrays, dtype="float64", weights=None):
    """The result of ``function`` and the gradients of its weighted sum, in float64."""
    with jax.enable_x64(dtype == "float64"):
        arrays = [jnp.asarray(array, dtype) for array in arrays]
        out, pull = jax.vjp(function, *arrays)
        seed = jnp.ones(out.shape, dtype) if weights is None else jnp.asarray(weights, dtype)
        return [np.asarray(array, np.float64) for array in (out, *pull(seed))]


def theirs(function, *arrays, dtype="float64", weights=None):
    tensors = [torch.tensor(array).to(getattr(torch, dtype)).requires_grad_() for array in arrays]
    out = function(*tensors)
    seed = torch.ones(out.shape) if weights is None else torch.tensor(weights)
    out.backward(seed.to(out.dtype))
    return [array.detach().double().numpy() for array in (out, *(tensor.grad for tensor in tensors))]


def of_maps(function, x, **options):
    """`theirs` of a function of a map, taken and given back channels-last."""
    results = theirs(function, x.transpose(TO_TORCH), **options)
    return [array.transpose(TO_FLAX) if array.ndim == 4 else array for array in results]


def attend(query, key, value, mask=None):
    """Ours, one head, channels first as in PyTorch."""
    heads = [jnp.moveaxis(x, 1, 2) for x in (query, key, value)]
    return jnp.moveaxis(ops.dot_product_attention(*heads, temperature=1.0, mask=mask)[0], 2, 1)


def attend_in_torch(query, key, value, mask=None):
    return dot_product.ScaledDotProductAttention(1.0)(query, key, value, mask)[0]


def row(*values):
    return np.array(values, float).reshape(1, 1, -1, 1)


LARGE = [
    # The largest score takes all, and has no gradient.
    ([1.0], [1e4, -1e4, 0.0], [2.0, 3.0, 5.0], [2.0], [0], [0, 0, 0], [1, 0, 0]),
    ([-1e4], [1.0, 2.0, 4.0], [2.0, 3.0, 5.0], [2.0], [0], [0, 0, 0], [1, 0, 0]),
    # Two largest ones share: dscore = w (dw - sum w dw) = 1/2 (2 - 3), 1/2 (4 - 3), 0.
    ([1.0], [1e4, 1e4, 0.0], [2.0, 4.0, 5.0], [3.0], [0], [-0.5, 0.5, 0], [0.5, 0.5, 0]),
]


@every_dtype
@pytest.mark.parametrize(("query", "key", "value", "out", "dquery", "dkey", "dvalue"), LARGE)
def test_large_scores_saturate(query, key, value, out, dquery, dkey, dvalue, dtype):
    arrays = [row(*query), row(*key), row(*value)]
    for results in (ours(attend, *arrays, dtype=dtype), theirs(attend_in_torch, *arrays, dtype=dtype)):
        for got, expected in zip(results, (out, dquery, dkey, dvalue), strict=True):
            np.testing.assert_array_equal(got.ravel(), expected)


@every_dtype
def test_a_row_without_a_key_hands_no_gradient_to_large_scores(dtype):
    # Four keys, so that the uniform weights are exact.
    arrays = [row(1e4, 1.0), row(1e4, -1e4, 3.0, 0.0), row(2.0, 4.0, 8.0, 16.0)]
    mask = np.array([[0, 0, 0, 0], [0, 1, 0, 0]], bool)[None, None]
    expected = ([7.5, 4.0], [0, 0], [0, 0, 0, 0], [0.25, 1.25, 0.25, 0.25])
    for results in (
        ours(lambda *x: attend(*x, mask=jnp.asarray(mask)), *arrays, dtype=dtype),
        theirs(lambda *x: attend_in_torch(*x, mask=torch.tensor(mask)), *arrays, dtype=dtype),
    ):
        for got, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(got.ravel(), wanted)


def test_a_score_below_a_billion_loses_against_what_is_masked():
    # -1e9 is a score like any other, in the tutorial and here: with such scores a mask does the opposite.
    arrays, mask = [row(1.0), row(-4e9, 0.0), row(2.0, 3.0)], np.array([[[[1, 0]]]], bool)
    for out, *_ in (
        ours(lambda *x: attend(*x, mask=jnp.asarray(mask)), *arrays),
        theirs(lambda *x: attend_in_torch(*x, mask=torch.tensor(mask)), *arrays),
    ):
        assert out.item() == 3.0


def first_of(x, axis):
    """The gradient of a maximum that goes to the first element along ``axis``."""
    gradient = np.zeros_like(x)
    gradient[tuple(0 if a in axis else slice(None) for a in range(x.ndim))] = 1
    return gradient


CONSTANT = np.full((2, 5, 7, 3), 1.5)


@every_dtype
@pytest.mark.parametrize("value", [1.5, 0.0, -1.5, 1e4])
def test_a_constant_map_gives_its_gradient_to_the_first_maximum(value, dtype):
    x = np.full((2, 5, 7, 3), value)
    for pool, reference, first in (
        (lambda x: ops.global_pool(x, "max"), lambda x: cbam.pool(x, "max"), first_of(x, (1, 2))),
        (lambda x: ops.max_first(x, -1), lambda x: x.max(1, keepdim=True)[0], first_of(x, (3,))),
    ):
        for _, gradient in (ours(pool, x, dtype=dtype), of_maps(reference, x, dtype=dtype)):
            np.testing.assert_array_equal(gradient, first)


@every_dtype
def test_a_constant_map_in_windows(dtype):
    x = np.full((2, 5, 7, 3), 1.5)
    first = np.zeros_like(x)
    first[:, 0:4:2, 0:6:2] = 1  # the last row and column are in no window
    for _, gradient in (
        ours(ops.max_pool_2x2, x, dtype=dtype),
        of_maps(torch.nn.MaxPool2d(2), x, dtype=dtype),
    ):
        np.testing.assert_array_equal(gradient, first)


def compared(flax_module, torch_module, x):
    """The largest error of a module's output and input gradient, relative to PyTorch's."""
    torch_module.eval().double()
    with jax.enable_x64(True):
        module = flax_attn.from_torch(flax_module(param_dtype=jnp.float64, rngs=nnx.Rngs(0)), torch_module.state_dict())
    module.eval()
    weights = np.random.default_rng(0).standard_normal(torch_module(torch.tensor(x.transpose(TO_TORCH))).shape)
    mine = ours(jax.jit(module), x, weights=weights.transpose(TO_FLAX))  # one by one, operations compile longer
    reference = of_maps(torch_module, x, weights=weights)
    assert all(np.isfinite(array).all() and array.any() for array in reference)
    return [relative_error(got, expected) for got, expected in zip(mine, reference, strict=True)]


LIMITS = tolerance("output", "float64"), tolerance("input gradient", "float64")


@pytest.mark.parametrize("value", [1.5, -2.0, 1e4])
@pytest.mark.parametrize("block", ["ChannelPool", "ChannelAttention", "ChannelGate"])
def test_blocks_on_constant_maps(block, value):
    arguments = {"ChannelPool": (), "ChannelAttention": (8, 2), "ChannelGate": (8, 2)}[block]
    reference = getattr(channel if block == "ChannelAttention" else cbam, block)
    torch.manual_seed(0)
    x = np.full((2, 5, 7, 8), value)
    # Units that are on, and weights small enough for gates that are open: neither has a gradient otherwise.
    twin = reference(*arguments)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.abs_().mul_(np.sign(value) / max(1.0, abs(value)))
    error, gradient_error = compared(lambda **options: getattr(flax_attn, block)(*arguments, **options), twin, x)
    assert error <= LIMITS[0]
    assert gradient_error <= LIMITS[1]


def test_a_black_image_behind_biases_of_zero():
    # Every leaky ReLU is at 0 and every window a tie.
    torch.manual_seed(0)
    twin = patch.ConvPart()
    with torch.no_grad():
        twin.c1a.bias.zero_()
        twin.c2a.bias.zero_()
    error, gradient_error = compared(lambda **options: ConvPart(**options), twin, np.zeros((2, 8, 12, 3)))
    assert error <= LIMITS[0]
    assert gradient_error <= LIMITS[1]


@every_dtype
@pytest.mark.parametrize("zeros", ["every channel", "one channel"])
def test_lp_of_zeros_is_0_with_gradient_0(zeros, dtype):
    x = np.zeros((2, 5, 7, 3))
    if zeros == "one channel":
        x[..., 1:] = 2.0
    out, gradient = ours(lambda x: ops.global_pool(x, "lp"), x, dtype=dtype)
    _, reference = of_maps(lambda x: cbam.pool(x, "lp"), x, dtype=dtype)
    np.testing.assert_array_equal(out[:, 0], 0)
    np.testing.assert_array_equal(gradient[..., 0], 0)
    assert relative_error(gradient, reference) <= tolerance("input gradient", dtype)


def test_a_gate_by_lp_of_zeros_has_no_nan():
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 8))
    x[0] = x[1, ..., 3] = 0
    error, gradient_error = compared(
        lambda **options: flax_attn.ChannelGate(8, 2, ("lp",), **options), cbam.ChannelGate(8, 2, ("lp",)), x
    )
    assert error <= LIMITS[0]
    assert gradient_error <= LIMITS[1]


@every_dtype
@pytest.mark.parametrize(
    ("pixels", "out", "gradient"),
    [
        ([0.0, -INF, 0.0, -INF], np.log(2), [0.5, 0, 0.5, 0]),
        ([-INF, -INF, 3.0, -INF], 3.0, [0, 0, 1, 0]),
        ([1e4, -INF, -1e4, 1e4], 1e4 + np.log(2), [0.5, 0, 0, 0.5]),
        # Nothing but -inf, or an infinity among numbers: inf - inf, as in the authors' code.
        ([-INF, -INF, -INF, -INF], NAN, [NAN, NAN, NAN, NAN]),
        ([0.0, INF, 0.0, -INF], NAN, [NAN, NAN, NAN, NAN]),
    ],
)
def test_negative_infinities_under_lse(pixels, out, gradient, dtype):
    x = np.array(pixels).reshape(1, 2, 2, 1)
    mine = ours(lambda x: ops.global_pool(x, "lse"), x, dtype=dtype)
    reference = of_maps(lambda x: cbam.pool(x, "lse"), x, dtype=dtype)
    for results in (mine, reference):
        np.testing.assert_array_equal(results[1].ravel(), gradient)
        np.testing.assert_array_equal(np.isnan(results[0]).ravel(), [np.isnan(out)])
        if not np.isnan(out):
            assert relative_error(results[0].ravel(), np.array([out])) <= tolerance("output", dtype)


def test_torchs_own_logsumexp_differs_where_there_is_nothing():
    # The authors subtract the maximum themselves. torch.logsumexp catches that -inf - -inf is NaN.
    assert torch.logsumexp(torch.full((4,), -INF), 0) == -INF
    assert torch.isnan(cbam.logsumexp_2d(torch.full((1, 1, 2, 2), -INF))).all()
