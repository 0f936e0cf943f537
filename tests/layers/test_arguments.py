"""What every layer takes: sizes by position or name, options by name alone."""

import inspect
from typing import Unpack

import pytest

from flax_attn import Options, layers

SIZES = {
    layers.BatchNorm: ["num_features"],
    layers.Conv: ["in_features", "out_features", "kernel_size"],
    layers.Dropout: ["rate"],
    layers.Embedding: ["num_embeddings", "features"],
    layers.LayerNorm: ["num_features"],
    layers.Linear: ["in_features", "out_features"],
}
DEFAULTS = {
    "dilation": 1,
    "eps": 1e-5,
    "groups": 1,
    "momentum": 0.1,
    "padding": 0,
    "rngs": inspect.Parameter.empty,
    "stride": 1,
    "use_bias": True,
}


@pytest.mark.parametrize("layer", SIZES)
def test_sizes_have_places_and_options_have_names_and_pytorchs_defaults(layer):
    _, *arguments = inspect.signature(layer.__init__).parameters.values()
    if layer is not layers.Dropout:  # which computes in the dtype of its input
        assert arguments.pop().annotation == Unpack[Options]
    count = len(SIZES[layer])
    assert [argument.name for argument in arguments[:count]] == SIZES[layer]
    assert {argument.kind for argument in arguments[:count]} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert {argument.kind for argument in arguments[count:]} == {inspect.Parameter.KEYWORD_ONLY}
    assert all(argument.default == DEFAULTS[argument.name] for argument in arguments[count:])
