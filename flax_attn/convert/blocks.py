"""The rules of blocks that hold parameters of their own, beside those of their layers."""

from collections.abc import Iterator

from ..blocks.criss_cross import CrissCrossAttention
from ..blocks.danet import DANetChannelAttention, DANetPositionAttention
from .layers import of_rank
from .rules import Entry, rule


@rule(CrissCrossAttention)
@rule(DANetChannelAttention)
@rule(DANetPositionAttention)
def _gamma(block: CrissCrossAttention | DANetChannelAttention | DANetPositionAttention) -> Iterator[Entry]:
    yield Entry("gamma", of_rank(1, block.gamma))
