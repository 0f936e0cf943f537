"""What every block has in common about input that it cannot use: argument, expected, got."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn import ops
from flax_attn.layers import BatchNorm, Conv, Linear
from flax_attn.networks.patch import PatchNetwork
from flax_attn.networks.sensor import SpatialAttentionNeuralNetwork
from flax_attn.registry import find_block
from flax_attn.testing.tolerances import tolerance

RNGS = {"rngs": nnx.Rngs(0)}


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: flax_attn.CBAM(8, 4, **RNGS)([[1.0]]), "x must be an array, got list"),
        (
            lambda: flax_attn.CBAM(8, 4, **RNGS)(jnp.ones((0, 2, 3, 8))),
            r"x must have shape \(b, h, w, c=8\), no axis of size 0, got \(0",
        ),
        (lambda: flax_attn.CBAM(8, 4, **RNGS)(jnp.ones((1, 0, 3, 8))), r"no axis of size 0, got \(1, 0, 3, 8\)"),
        (lambda: flax_attn.ScaledDotProductAttention(1.0, 2, **RNGS), r"attn_dropout must lie in \[0, 1\], got 2"),
        (lambda: flax_attn.ConvAttention(3, 3, **RNGS)([1], [2]), "query must be an array, got list"),
        (
            lambda: flax_attn.ConvAttention(3, 3, **RNGS)(jnp.ones((2, 3)), 0),
            r"a sequence .* or a map .*, got \(2, 3\)",
        ),
        (lambda: Linear(0, 3, **RNGS), "in_features must be a whole number >= 1, got 0"),
        (lambda: Conv(4, 8, (3,), groups=8, **RNGS), "groups must divide 4 and 8 channels, got 8"),
        (
            lambda: PatchNetwork(flax_attn.CBAM(32, **RNGS), "article", **RNGS),
            "token_order must be 'pixels' without token attention, got 'article'",
        ),
        (lambda: flax_attn.ChannelGate(8, 4, (p for p in ["avg"]), **RNGS), "pool_types must be a sequence"),
        (lambda: flax_attn.BasicConv(3, 5, (3,), **RNGS), r"kernel_size must be an int or a pair of ints, got \(3,\)"),
        (lambda: flax_attn.BasicConv(3, 5, 2.5, **RNGS), r"kernel_size\[0\] must be a whole number >= 1, got 2.5"),
        (lambda: flax_attn.BasicConv(3, 5, 3, padding=-1, **RNGS), "padding must be a whole number >= 0, got -1"),
        (
            lambda: flax_attn.BasicConv(3, 5, 7, dilation=2, padding=1, **RNGS)(jnp.ones((1, 10, 12, 3))),
            "x must have h >= 11 for a kernel that spans 13, got 10",
        ),
        (lambda: flax_attn.SinePositionEncoding2d(8, 0, **RNGS), "temperature must be a finite number above 0, got 0"),
        (lambda: flax_attn.MultiHeadAttention(2, 4, 2, 2, "0.1", **RNGS), r"dropout must lie in \[0, 1\], got '0.1'"),
        (lambda: PatchNetwork("cbam", **RNGS), "block must be an nnx.Module or None, got 'cbam'"),
        (lambda: PatchNetwork(flax_attn.CBAM, **RNGS), "block must be an nnx.Module or None"),
        (
            lambda: PatchNetwork(
                flax_attn.CBAM(32, **RNGS), "pixels", flax_attn.SinePositionEncoding2d(32, **RNGS), **RNGS
            ),
            "position must be None without token attention, got SinePositionEncoding2d",
        ),
        (
            lambda: PatchNetwork(flax_attn.ChannelAttention(32, **RNGS), **RNGS)(jnp.ones((1, 8, 12, 3))),
            r"the block's output must have shape \(b=1, h=2, w=3, c=32\), got \(1, 1, 1, 32\)",
        ),
        (lambda: SpatialAttentionNeuralNetwork((), 3, **RNGS), r"train_shape must be a shape .*, got \(\)"),
        (lambda: SpatialAttentionNeuralNetwork(9, 3, **RNGS), "train_shape must be a shape .*, got 9"),
        (lambda: BatchNorm(5, **RNGS)(jnp.ones((2, 1))), r"x must have shape \(axis_0, c=5\), got \(2, 1\)"),
        (
            lambda: ops.tokens_to_map(jnp.ones((1, 15, 2)), 4, 5),
            r"tokens must have shape \(b, n=20, c\), got \(1, 15, 2\)",
        ),
        (lambda: flax_attn.attention_maps(lambda x: x, 1), "module must be an nnx.Module, got function"),
        (
            lambda: flax_attn.AdditiveAttention(3, 3, 3, **RNGS)(*[jnp.ones((2, 5, 3))] * 3, [[1]]),
            "mask must be an array, got list",
        ),
        (
            lambda: flax_attn.AdditiveAttention(3, 3, 3, **RNGS)(*[jnp.ones((2, 5, 3))] * 3, torch.ones(2, 5, 5)),
            "mask must be an array, got Tensor",
        ),
    ],
)
def test_bad_input(use, message):
    with pytest.raises(ValueError, match=message):
        use()


def test_whole_numbers_become_floats():
    assert ops.global_pool(jnp.full((1, 3, 5, 1), 200, jnp.uint8), "lp").dtype == jnp.float32
    x = jnp.ones((1, 2, 3, 8), jnp.int32)
    encoded = flax_attn.SinePositionEncoding2d(8, **RNGS)(x)
    assert (encoded == flax_attn.SinePositionEncoding2d(8, **RNGS)(x.astype(jnp.float32))).all()


SIZES = ((1, 1), (1, 7), (3, 2), (5, 5))
WIDTHS = (1, 3, 6, 7, 10, 32)


def of_the_twin(entry, args, inputs):
    """The output of the PyTorch twin in Flax's layout, with the weights of ours, and ours."""
    block = entry.block(**args, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    block.eval()
    ours = jax.tree.leaves(block(*map(jnp.asarray, inputs)))[0]
    twin = importlib.import_module(entry.block.__module__.replace("flax_attn", "torch_ref"))
    theirs = getattr(twin, entry.block.__name__)(**args).double().eval()
    theirs.load_state_dict(flax_attn.to_torch(block, tensors=True), strict=False)
    output = theirs(*(torch.from_numpy(x.transpose(0, 3, 1, 2).copy() if x.ndim == 4 else x) for x in inputs))
    output = (output[0] if isinstance(output, tuple) else output).detach().numpy()
    return ours, output.transpose(0, 2, 3, 1) if output.ndim == 4 else output


def errors_of(entry, width, size):
    """What is wrong with a block's answer to a map: an error that is not of ours, or another answer than the twin's."""
    x = np.random.default_rng(0).standard_normal((2, *size, width))
    x = x.reshape(2, -1, width) if entry.over_tokens else x
    inputs = [x] * {"tokens": 3, "context": 2}.get(entry.kind, 1)
    try:
        ours, theirs = of_the_twin(entry, entry.arguments_for(width, size), inputs)
    except ValueError as error:
        return "" if ", got" in str(error) else str(error)
    if ours.shape != theirs.shape:
        return f"{ours.shape} for {theirs.shape}"
    error = np.linalg.norm(ours - theirs)
    scale = max(np.linalg.norm(theirs), np.linalg.norm(x))
    return "" if error <= tolerance("output", "float64") * scale else f"off by {error}"


def check_sizes(name, widths, sizes):
    with jax.enable_x64(True), jax.default_prng_impl("rbg"):
        found = {(width, *size): errors_of(find_block(name), width, size) for width in widths for size in sizes}
    assert {where: error for where, error in found.items() if error} == {}


@pytest.mark.nightly
@pytest.mark.parametrize("name", flax_attn.list_blocks())
def test_odd_maps_and_widths_give_the_twins_output_or_an_error(name):
    check_sizes(name, WIDTHS, SIZES)


@pytest.mark.parametrize("name", ["shifted_window", "halo", "gather_excite", "outlook"])
def test_a_map_below_the_window(name):
    check_sizes(name, (32,), ((1, 7),))


def test_another_map_than_positions_were_made_for():
    block = flax_attn.create_block("bottleneck", 32, size=(5, 5), **RNGS)
    with pytest.raises(ValueError, match=r"x must have .*5.*, got .*7"):
        block(jnp.ones((2, 5, 7, 32)))


@pytest.mark.parametrize("name", ["bottleneck", "attention_pool"])
def test_a_size_that_positions_need(name):
    with pytest.raises(ValueError, match=r"size must be the height and width of the map for .*, got None"):
        flax_attn.create_block(name, 32, **RNGS)
