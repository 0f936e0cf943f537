"""The rules of blocks that hold tables of relative positions, whose arrays are laid out as in PyTorch."""

from collections.abc import Iterator

import numpy as np

from .. import ops
from ..blocks.bottleneck import BottleneckAttention
from ..blocks.halo import HaloAttention
from ..blocks.lambda_layer import LambdaLayer
from ..blocks.window import ShiftedWindowAttention, WindowAttention
from .layers import of_rank
from .rules import Entry, rule


@rule(WindowAttention)
def _window_attention(block: WindowAttention | ShiftedWindowAttention) -> Iterator[Entry]:
    yield Entry("relative_position_bias_table", of_rank(2, block.relative_position_bias_table))


@rule(ShiftedWindowAttention)
def _shifted_window_attention(block: ShiftedWindowAttention) -> Iterator[Entry]:
    """Torchvision saves the index, which follows from the window's size; timm does not."""
    yield from _window_attention(block)
    index = ops.relative_position_index(block.window_size).ravel().astype(np.int64)
    yield Entry("relative_position_index", None, constant=index)


@rule(BottleneckAttention)
@rule(HaloAttention)
def _rows_and_columns(block: BottleneckAttention | HaloAttention) -> Iterator[Entry]:
    yield Entry("pos_embed.height_rel", of_rank(2, block.height_rel))
    yield Entry("pos_embed.width_rel", of_rank(2, block.width_rel))


@rule(LambdaLayer)
def _lambda_layer(block: LambdaLayer) -> Iterator[Entry]:
    """Timm has no axis for the intra-depth, which is 1 there; lambda-networks always has it."""
    if block.pos_emb is not None:
        whole = of_rank(4, block.pos_emb).shape
        shape = whole[:3] if whole[3] == 1 else whole
        yield Entry("pos_emb", block.pos_emb, lambda x: x.reshape(shape), lambda x: x.reshape(whole), shapes=(whole,))
