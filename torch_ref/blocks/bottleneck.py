"""Attention with relative positions in two dimensions (Srinivas et al. 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record


def key_width(dim_out: int, num_heads: int, dim_head: int | None, qk_ratio: float) -> int:
    """``dim_head``, or a share of the output channels, as a multiple of 8, spread over the heads."""
    if dim_head is not None:
        return dim_head
    width = max(8, int(dim_out * qk_ratio + 4) // 8 * 8)
    return (width + 8 if width < 0.9 * dim_out * qk_ratio else width) // num_heads


def new_tables(rows: int, columns: int, d: int) -> nn.ParameterDict:
    """A vector for each distance between rows, and between columns."""
    sizes = {"height_rel": 2 * rows - 1, "width_rel": 2 * columns - 1}
    return nn.ParameterDict({name: d**-0.5 * torch.randn(size, d) for name, size in sizes.items()})


def position_scores(q: Tensor, tables: nn.ParameterDict) -> Tensor:
    """Queries (b, heads, h, w, d) -> what the positions add, (b, heads, h * w, rows * columns)."""

    def distances(table: Tensor, queries: int) -> Tensor:
        keys = (len(table) + 1) // 2
        return table[torch.arange(keys) - torch.arange(queries)[:, None] + keys - 1]

    rows = torch.einsum("bnyxd,yjd->bnyxj", q, distances(tables["height_rel"], q.size(2)))
    columns = torch.einsum("bnyxd,xid->bnyxi", q, distances(tables["width_rel"], q.size(3)))
    return (rows[..., None] + columns[..., None, :]).flatten(4).flatten(2, 3)


class BottleneckAttention(nn.Module):
    """Map (b, dim, h, w) of one size -> (b, dim_out, h, w), halved with a stride of 2."""

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        feat_size: tuple[int, int] | None = None,
        stride: int = 1,
        num_heads: int = 4,
        dim_head: int | None = None,
        qk_ratio: float = 1.0,
        qkv_bias: bool = False,
        scale_pos_embed: bool = False,
    ):
        super().__init__()
        assert feat_size is not None
        dim_out = dim_out or dim
        self.num_heads, self.stride, self.scale_pos_embed = num_heads, stride, scale_pos_embed
        self.d = key_width(dim_out, num_heads, dim_head, qk_ratio)
        self.qkv = nn.Conv2d(dim, 2 * num_heads * self.d + dim_out, 1, bias=qkv_bias)
        nn.init.trunc_normal_(self.qkv.weight, std=dim**-0.5)
        self.pos_embed = new_tables(*feat_size, self.d)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        qkv, qk = self.qkv(x), self.num_heads * self.d
        q, k, v = (part.unflatten(1, (self.num_heads, -1)).movedim(2, -1) for part in qkv.tensor_split((qk, 2 * qk), 1))
        scale = self.d**-0.5
        positions = position_scores(q, self.pos_embed) * (scale if self.scale_pos_embed else 1)
        scores = q.flatten(2, 3) @ k.flatten(2, 3).transpose(2, 3) * scale + positions
        weights = torch.softmax(scores, dim=-1)
        record(self, "weights", weights)
        out = (weights @ v.flatten(2, 3)).transpose(2, 3).reshape(b, -1, h, w)
        return F.avg_pool2d(out, 2) if self.stride == 2 else out
