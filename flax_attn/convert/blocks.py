"""The rules of blocks that hold parameters of their own, beside those of their layers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from flax import nnx

from ..blocks.attention_pool import AttentionPool2d, RotaryAttentionPool2d
from ..blocks.cbam import SpatialGate
from ..blocks.criss_cross import CrissCrossAttention
from ..blocks.danet import DANetChannelAttention, DANetPositionAttention
from ..blocks.differential import DifferentialAttention
from ..blocks.gct import GatedChannelTransformation
from ..blocks.separable import SeparableSelfAttention
from ..blocks.shuffle import ShuffleAttention
from ..blocks.spatial_group import SpatialGroupEnhance
from ..blocks.ufo import UFOAttention
from .layers import conv_entries, in_parts, of_rank, reordered
from .rules import Entry, rule


def per_channel(name: str, variable: nnx.Variable[Any]) -> Entry:
    """A number per channel or head: Flax (c,), PyTorch (1, c, 1, 1)."""
    return Entry(name, of_rank(1, variable), lambda array: array[None, :, None, None], np.ravel)


@rule(ShuffleAttention)
def _shuffle_attention(block: ShuffleAttention) -> Iterator[Entry]:
    for name in ("cweight", "cbias", "sweight", "sbias"):
        yield per_channel(name, getattr(block, name))


@rule(SpatialGate)
def _spatial_gate(gate: SpatialGate) -> Iterator[Entry]:
    """The convolution reads the channels' maximum, then their mean; timm's the mean first."""
    (one,) = conv_entries(gate.spatial.conv)
    other = reordered(one, "mean_max.weight", _swapped, _swapped)
    yield replace(one, name="spatial.conv.weight", instead=(other,))


def _swapped(weight: np.ndarray) -> np.ndarray:
    return weight[:, ::-1]


@rule(SeparableSelfAttention)
def _separable_self_attention(block: SeparableSelfAttention) -> Iterator[Entry]:
    """Score, key and value are one layer; fightingcv has three."""
    width = block.embed_dim
    yield from in_parts("qkv_proj", block.qkv_proj, {"score_proj": 1, "key_proj": width, "value_proj": width})


@rule(UFOAttention)
def _ufo_attention(block: UFOAttention) -> Iterator[Entry]:
    yield per_channel("gamma", block.gamma)


@rule(AttentionPool2d)
@rule(DifferentialAttention)
@rule(RotaryAttentionPool2d)
def _own(block: nnx.Module) -> Iterator[Entry]:
    yield from (Entry(name, value) for name, value in vars(block).items() if isinstance(value, nnx.Param))


@rule(CrissCrossAttention)
@rule(DANetChannelAttention)
@rule(DANetPositionAttention)
def _gamma(block: CrissCrossAttention | DANetChannelAttention | DANetPositionAttention) -> Iterator[Entry]:
    yield Entry("gamma", of_rank(1, block.gamma))


@rule(GatedChannelTransformation)
def _gated_channel_transformation(block: GatedChannelTransformation) -> Iterator[Entry]:
    for name in ("alpha", "gamma", "beta"):
        yield per_channel(name, getattr(block, name))


@rule(SpatialGroupEnhance)
def _spatial_group_enhance(block: SpatialGroupEnhance) -> Iterator[Entry]:
    for name in ("weight", "bias"):
        yield per_channel(name, getattr(block, name))
