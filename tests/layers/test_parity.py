"""Every layer is PyTorch's: outputs, gradients and buffers in float64 in both modes, and weights in both directions."""

import numpy as np
import pytest
import torch
from flax import nnx

from flax_attn import from_torch, layers, to_torch
from flax_attn.testing import assert_parity

SEQUENCE, MAP, VOLUME = "b c n -> b n c", "b c h w -> b h w c", "b c d h w -> b d h w c"
IMAGE, ODD = (2, 3, 11, 7), (2, 6, 13, 8)


# name: ours, PyTorch's, the shape of the input and its layout.
CASES = {
    "BatchNorm": (lambda r: layers.BatchNorm(3, rngs=r), lambda: torch.nn.BatchNorm2d(3), IMAGE, MAP),
    "BatchNorm, cumulative": (
        lambda r: layers.BatchNorm(3, momentum=None, rngs=r),
        lambda: torch.nn.BatchNorm2d(3, momentum=None),
        IMAGE,
        MAP,
    ),
    "Conv": (lambda r: layers.Conv(3, 5, 3, rngs=r), lambda: torch.nn.Conv2d(3, 5, 3), IMAGE, MAP),
    "Conv, all by position": (
        lambda r: layers.Conv(6, 4, (3, 2), (2, 1), (1, 2), (1, 2), 2, False, rngs=r),
        lambda: torch.nn.Conv2d(6, 4, (3, 2), (2, 1), (1, 2), (1, 2), 2, False),
        ODD,
        MAP,
    ),
    "Conv, volume": (
        lambda r: layers.Conv(2, 3, (3, 2, 1), 2, 1, rngs=r),
        lambda: torch.nn.Conv3d(2, 3, (3, 2, 1), 2, 1),
        (2, 2, 5, 4, 3),
        VOLUME,
    ),
    "ConvTranspose": (
        lambda r: layers.ConvTranspose(3, 5, 3, rngs=r),
        lambda: torch.nn.ConvTranspose2d(3, 5, 3),
        IMAGE,
        MAP,
    ),
    "ConvTranspose, all by position": (
        lambda r: layers.ConvTranspose(6, 4, (3, 4), (2, 3), (1, 2), (1, 0), 1, False, (2, 1), rngs=r),
        lambda: torch.nn.ConvTranspose2d(6, 4, (3, 4), (2, 3), (1, 2), (1, 0), 1, False, (2, 1)),
        ODD,
        MAP,
    ),
    "ConvTranspose, sequence": (
        lambda r: layers.ConvTranspose(3, 2, (5,), 3, padding=4, output_padding=2, rngs=r),
        lambda: torch.nn.ConvTranspose1d(3, 2, 5, 3, padding=4, output_padding=2),
        (2, 3, 7),
        SEQUENCE,
    ),
    "GroupNorm": (lambda r: layers.GroupNorm(2, 6, rngs=r), lambda: torch.nn.GroupNorm(2, 6), ODD, MAP),
    "GroupNorm, all by position": (
        lambda r: layers.GroupNorm(3, 6, 0.1, False, rngs=r),
        lambda: torch.nn.GroupNorm(3, 6, 0.1, False),
        (2, 6, 5),
        SEQUENCE,
    ),
    "GroupNorm, vectors": (lambda r: layers.GroupNorm(2, 6, rngs=r), lambda: torch.nn.GroupNorm(2, 6), (5, 6), None),
    "LayerNorm": (lambda r: layers.LayerNorm(7, rngs=r), lambda: torch.nn.LayerNorm(7), (2, 5, 7), None),
    "RMSNorm": (lambda r: layers.RMSNorm(7, rngs=r), lambda: torch.nn.RMSNorm(7), (2, 5, 7), None),
    "RMSNorm, eps": (lambda r: layers.RMSNorm(7, 0.1, rngs=r), lambda: torch.nn.RMSNorm(7, 0.1), (2, 5, 7), None),
    "Linear": (lambda r: layers.Linear(7, 3, rngs=r), lambda: torch.nn.Linear(7, 3), (2, 5, 7), None),
    "Linear, by position": (
        lambda r: layers.Linear(7, 3, False, rngs=r),
        lambda: torch.nn.Linear(7, 3, False),
        (2, 5, 7),
        None,
    ),
    "GELU": (lambda r: layers.GELU(), torch.nn.GELU, (2, 5, 7), None),
    "GELU, tanh": (lambda r: layers.GELU("tanh"), lambda: torch.nn.GELU("tanh"), (2, 5, 7), None),
    "MaxPool": (lambda r: layers.MaxPool(2), lambda: torch.nn.MaxPool2d(2), IMAGE, MAP),
    "MaxPool, all by position": (
        lambda r: layers.MaxPool((3, 2), (2, 3), 1),
        lambda: torch.nn.MaxPool2d((3, 2), (2, 3), 1),
        ODD,
        MAP,
    ),
    "MaxPool, ceiling": (
        lambda r: layers.MaxPool(3, 2, 1, ceil_mode=True),
        lambda: torch.nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        ODD,
        MAP,
    ),
    "MaxPool, sequence": (
        lambda r: layers.MaxPool((4,), 3, ceil_mode=True),
        lambda: torch.nn.MaxPool1d(4, 3, ceil_mode=True),
        (2, 3, 12),
        SEQUENCE,
    ),
    "MaxPool, volume": (
        lambda r: layers.MaxPool((2, 1, 2)),
        lambda: torch.nn.MaxPool3d((2, 1, 2)),
        (2, 3, 5, 4, 6),
        VOLUME,
    ),
    "AvgPool": (lambda r: layers.AvgPool(2), lambda: torch.nn.AvgPool2d(2), IMAGE, MAP),
    "AvgPool, padding that counts": (
        lambda r: layers.AvgPool((3, 2), (2, 3), (1, 0)),
        lambda: torch.nn.AvgPool2d((3, 2), (2, 3), (1, 0)),
        ODD,
        MAP,
    ),
    "AvgPool, all by position": (
        lambda r: layers.AvgPool(3, 2, 1, True, False),
        lambda: torch.nn.AvgPool2d(3, 2, 1, True, False),
        ODD,
        MAP,
    ),
    "AvgPool, ceiling and padding that counts": (
        lambda r: layers.AvgPool((3, 4), (2, 3), 1, True),
        lambda: torch.nn.AvgPool2d((3, 4), (2, 3), 1, True),
        ODD,
        MAP,
    ),
    "AvgPool, padding that does not count": (
        lambda r: layers.AvgPool((3,), 2, 1, count_include_pad=False),
        lambda: torch.nn.AvgPool1d(3, 2, 1, count_include_pad=False),
        (2, 3, 7),
        SEQUENCE,
    ),
    "AvgPool, divisor": (
        lambda r: layers.AvgPool(3, divisor_override=5),
        lambda: torch.nn.AvgPool2d(3, divisor_override=5),
        IMAGE,
        MAP,
    ),
    "AvgPool, last window behind the array": (
        lambda r: layers.AvgPool(2, 3, 1, True),
        lambda: torch.nn.AvgPool2d(2, 3, 1, True),
        (2, 3, 6, 5),
        MAP,
    ),
    "AdaptiveAvgPool": (lambda r: layers.AdaptiveAvgPool(1), lambda: torch.nn.AdaptiveAvgPool2d(1), IMAGE, MAP),
    "AdaptiveAvgPool, overlapping bins": (
        lambda r: layers.AdaptiveAvgPool((4, 5)),
        lambda: torch.nn.AdaptiveAvgPool2d((4, 5)),
        IMAGE,
        MAP,
    ),
    "AdaptiveAvgPool, more bins than places": (
        lambda r: layers.AdaptiveAvgPool((None, 9)),
        lambda: torch.nn.AdaptiveAvgPool2d((None, 9)),
        IMAGE,
        MAP,
    ),
    "AdaptiveAvgPool, sequence": (
        lambda r: layers.AdaptiveAvgPool((3,)),
        lambda: torch.nn.AdaptiveAvgPool1d(3),
        (2, 3, 7),
        SEQUENCE,
    ),
}


def test_every_layer_is_compared():
    elsewhere = {"Dropout", "Embedding", "MultiheadAttention"}
    named = {name.split(",")[0] for name in CASES}
    assert named | elsewhere == {name for name, value in vars(layers).items() if isinstance(value, type)}


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_pytorchs(name):
    ours, theirs, shape, layout = CASES[name]
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal(shape)
    layouts = {"inputs": [layout], "outputs": [layout]}
    assert_parity(ours(nnx.Rngs(0)), theirs(), x, layouts=layouts, dtypes=["float64"])


TIES = {
    "MaxPool": (layers.MaxPool(2, 1), torch.nn.MaxPool2d(2, 1)),
    "MaxPool, padding": (layers.MaxPool(3, 2, 1), torch.nn.MaxPool2d(3, 2, 1)),
}


@pytest.mark.parametrize("name", TIES)
def test_of_equal_values_the_first_gets_the_gradient(name):
    x = np.round(np.random.default_rng(0).standard_normal(IMAGE))
    x[0, 0] = 0
    assert_parity(*TIES[name], x, layouts={"inputs": [MAP], "outputs": [MAP]}, dtypes=["float64"])


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_embedding_is_pytorchs(padding_idx):
    torch.manual_seed(0)
    theirs = torch.nn.Embedding(7, 5, padding_idx)
    with torch.no_grad():
        theirs.weight.normal_()  # a row of padding that is not zeros, as after loading a checkpoint
    tokens = np.array([[0, 2, 6, 2], [6, 5, 3, 1]])
    ours = layers.Embedding(7, 5, padding_idx, rngs=nnx.Rngs(0))
    assert_parity(ours, theirs, tokens, layouts={"inputs": [None], "outputs": [None]}, dtypes=["float64"])
    if padding_idx is not None:
        fresh = np.asarray(layers.Embedding(7, 5, padding_idx, rngs=nnx.Rngs(0)).embedding[...])
        np.testing.assert_array_equal((fresh == 0).all(1), np.arange(7) == padding_idx % 7)


@pytest.mark.parametrize("name", ["ConvTranspose", "GroupNorm", "Conv", "Linear", "BatchNorm, cumulative"])
def test_weights_go_both_ways_bit_by_bit(name):
    ours, theirs, _, _ = CASES[name]
    state_dict = {key: value.numpy() for key, value in theirs().state_dict().items()}
    if "num_batches_tracked" in state_dict:
        state_dict["num_batches_tracked"] = np.array(7)
    written = to_torch(from_torch(ours(nnx.Rngs(0)), state_dict))
    assert written.keys() == state_dict.keys()
    for key, value in state_dict.items():
        np.testing.assert_array_equal(written[key], value, strict=True)
