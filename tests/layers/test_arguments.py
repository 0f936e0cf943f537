"""What every layer takes: PyTorch's arguments in PyTorch's places with PyTorch's defaults, then options by name."""

import inspect
import warnings
from typing import Unpack

import jax.numpy as jnp
import pytest
import torch
from flax import nnx

from flax_attn import Options, layers

TWINS = {
    layers.AdaptiveAvgPool: torch.nn.AdaptiveAvgPool2d,
    layers.AvgPool: torch.nn.AvgPool2d,
    layers.BatchNorm: torch.nn.BatchNorm2d,
    layers.Conv: torch.nn.Conv2d,
    layers.ConvTranspose: torch.nn.ConvTranspose2d,
    layers.Embedding: torch.nn.Embedding,
    layers.GELU: torch.nn.GELU,
    layers.GroupNorm: torch.nn.GroupNorm,
    layers.LayerNorm: torch.nn.LayerNorm,
    layers.Linear: torch.nn.Linear,
    layers.MaxPool: torch.nn.MaxPool2d,
    layers.MultiheadAttention: torch.nn.MultiheadAttention,
    layers.RMSNorm: torch.nn.RMSNorm,
}
# Flax's names of PyTorch's arguments.
NAMES = {
    "in_channels": "in_features",
    "out_channels": "out_features",
    "embedding_dim": "features",
    "normalized_shape": "num_features",
}
BARE = (layers.AdaptiveAvgPool, layers.AvgPool, layers.GELU, layers.MaxPool)  # without parameters


@pytest.mark.parametrize("layer", TWINS)
def test_arguments_have_pytorchs_places_and_defaults(layer):
    ours, theirs = (list(inspect.signature(side.__init__).parameters.values())[1:] for side in (layer, TWINS[layer]))
    placed = [(argument.name, argument.default) for argument in ours if argument.kind == argument.POSITIONAL_OR_KEYWORD]
    assert placed == [(NAMES.get(x.name, x.name), x.default) for x in theirs[: len(placed)]]
    named = {argument.name: argument for argument in ours[len(placed) :]}
    if layer not in BARE:
        assert named.pop("options").annotation == Unpack[Options]
        assert named.pop("rngs").default is inspect.Parameter.empty
    assert named.keys() <= {"use_bias", "ceil_mode", "axis_name"}


def test_every_layer_is_here():
    assert TWINS.keys() | {layers.Dropout} == {value for value in vars(layers).values() if isinstance(value, type)}


@pytest.mark.parametrize("make", [lambda **o: layers.Linear(3, 5, **o), lambda **o: layers.Conv(3, 5, 3, **o)])
@pytest.mark.parametrize("bias", [True, False])
def test_use_bias_is_the_old_name_of_bias(make, bias):
    with pytest.warns(DeprecationWarning, match="use_bias is now called bias") as caught:
        old = make(use_bias=bias, rngs=nnx.Rngs(0))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = make(bias=bias, rngs=nnx.Rngs(0))
    assert (old.bias is not None) == (new.bias is not None) == bias


R = {"rngs": nnx.Rngs(0)}


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: layers.Conv(3, 5, (3, 3), 0, **R), "stride must be a whole number >= 1, or 2 of them, got 0"),
        (lambda: layers.Conv(3, 5, (3,), (1, 2), **R), r"stride must be .*, or 1 of them, got \(1, 2\)"),
        (lambda: layers.Conv(3, 5, 2.5, **R), "kernel_size must be a whole number >= 1, or 2 of them, got 2.5"),
        (lambda: layers.Conv(3, 5, (1, 1, 1, 1), **R), r"kernel_size must be .*, or one to three of them, got \(1"),
        (lambda: layers.Conv(3, 5, 3, padding="same", **R), "padding must be a whole number >= 0, .*, got 'same'"),
        (lambda: layers.ConvTranspose(3, 5, 3, groups=3, **R), "groups must be 1, .*, got 3"),
        (lambda: layers.ConvTranspose(3, 5, 3, 2, 0, 2, **R), "output_padding must be less than stride or dilation"),
        (lambda: layers.Embedding(7, 3, 7, **R), "padding_idx must be a row of 7, got 7"),
        (lambda: layers.GroupNorm(4, 6, **R), "num_groups must divide num_channels=6, got 4"),
        (lambda: layers.GroupNorm(2, 6, **R)(jnp.ones((2, 5))), r"x must have shape \(b, c=6\), got \(2, 5\)"),
        (lambda: layers.MaxPool(3, dilation=2), "dilation must be 1, as JAX cannot differentiate"),
        (lambda: layers.MaxPool(3, padding=2), "padding must be at most half of kernel_size=3, got 2"),
        (lambda: layers.AvgPool(3)(jnp.ones((2, 5, 3))), r"x must have shape \(b, h, w, c\), got \(2, 5, 3\)"),
        (lambda: layers.AvgPool(3, divisor_override=0), "divisor_override must be a whole number >= 1, got 0"),
        (lambda: layers.AdaptiveAvgPool(0), r"output_size\[0\] must be a whole number >= 1, got 0"),
        (lambda: layers.AdaptiveAvgPool([1] * 4), r"output_size must be .* one to three of them, got \[1, 1, 1, 1\]"),
        (lambda: layers.GELU("sigmoid"), "approximate must be one of 'none', 'tanh', got 'sigmoid'"),
    ],
)
def test_bad_input(use, message):
    with pytest.raises(ValueError, match=message):
        use()
