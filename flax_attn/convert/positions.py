"""The rules of blocks that hold tables of relative positions, whose arrays are laid out as in PyTorch."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .. import ops
from ..blocks.bottleneck import BottleneckAttention
from ..blocks.halo import HaloAttention
from ..blocks.lambda_layer import LambdaLayer
from ..blocks.window import ShiftedWindowAttention, WindowAttention
from .layers import conv_entries, in_parts, of_rank, reordered
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
def _rows_and_columns(block: BottleneckAttention | HaloAttention) -> Iterator[Entry]:
    yield Entry("pos_embed.height_rel", of_rank(2, block.height_rel))
    yield Entry("pos_embed.width_rel", of_rank(2, block.width_rel))


@rule(HaloAttention)
def _halo_attention(block: HaloAttention) -> Iterator[Entry]:
    """Timm has the keys and values of one head, then of the next; halonet-pytorch all keys, then all values."""
    yield from _rows_and_columns(block)
    by_head = np.arange(block.num_heads * block.d + block.dim_out).reshape(block.num_heads, -1)
    order = np.concatenate([by_head[:, : block.d].ravel(), by_head[:, block.d :].ravel()])
    back = np.argsort(order)
    for one in conv_entries(block.kv):
        other = reordered(one, f"keys_values.{one.name}", lambda rows: rows[order], lambda rows: rows[back])
        yield replace(one, name=f"kv.{one.name}", instead=(other,))


@rule(LambdaLayer)
def _lambda_layer(block: LambdaLayer) -> Iterator[Entry]:
    """Timm has one projection, kernels with a last axis of 1 and no axis for the intra-depth, which is 1 there.

    Lambda-networks has three projections, kernels whose third axis is 1, and always an axis for the intra-depth.
    """
    yield from in_parts(
        "qkv", block.qkv, {"q": block.num_heads * block.k, "k": block.u * block.k, "v": block.u * block.v}
    )
    if block.conv_lambda is not None:
        for entry in conv_entries(block.conv_lambda):
            third = ((*entry.shape[:2], 1, *entry.shape[2:4]),) if entry.name == "weight" else ()
            yield replace(entry, name=f"conv_lambda.{entry.name}", shapes=third)
    if block.pos_emb is not None:
        whole = of_rank(4, block.pos_emb).shape
        shape = whole[:3] if whole[3] == 1 else whole
        yield Entry("pos_emb", block.pos_emb, lambda x: x.reshape(shape), lambda x: x.reshape(whole), shapes=(whole,))
