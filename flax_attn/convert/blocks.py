"""The rules of blocks that hold parameters of their own, beside those of their layers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import nnx

from ..blocks.gct import GatedChannelTransformation
from ..blocks.spatial_group import SpatialGroupEnhance
from .layers import of_rank
from .rules import Entry, rule


def per_channel(name: str, variable: nnx.Variable[Any]) -> Entry:
    """A number per channel: Flax (c,), PyTorch (1, c, 1, 1)."""
    return Entry(name, of_rank(1, variable), lambda array: array[None, :, None, None], np.ravel)


@rule(GatedChannelTransformation)
def _gated_channel_transformation(block: GatedChannelTransformation) -> Iterator[Entry]:
    for name in ("alpha", "gamma", "beta"):
        yield per_channel(name, getattr(block, name))


@rule(SpatialGroupEnhance)
def _spatial_group_enhance(block: SpatialGroupEnhance) -> Iterator[Entry]:
    for name in ("weight", "bias"):
        yield per_channel(name, getattr(block, name))
