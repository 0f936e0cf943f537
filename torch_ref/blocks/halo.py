"""Attention of blocks of a map to the windows around them (Vaswani et al. 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record
from .bottleneck import key_width, new_tables, position_scores


class HaloAttention(nn.Module):
    """Map (b, dim, h, w) -> (b, dim_out, h, w), halved with a stride of 2."""

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        stride: int = 1,
        num_heads: int = 8,
        dim_head: int | None = None,
        block_size: int = 8,
        halo_size: int = 3,
        qk_ratio: float = 1.0,
        qkv_bias: bool = False,
        avg_down: bool = False,
        scale_pos_embed: bool = False,
        mask_padding: bool = False,
        out_proj: bool = False,
    ):
        super().__init__()
        dim_out = dim_out or dim
        self.num_heads, self.halo_size, self.block_size = num_heads, halo_size, block_size
        self.scale_pos_embed, self.mask_padding = scale_pos_embed, mask_padding
        self.d = key_width(dim_out, num_heads, dim_head, qk_ratio)
        self.pools = stride == 2 and (avg_down or block_size % 2 == 1)
        self.query_stride = 1 if self.pools else stride
        self.window = block_size + 2 * halo_size
        self.q = nn.Conv2d(dim, num_heads * self.d, 1, stride=self.query_stride, bias=qkv_bias)
        self.kv = nn.Conv2d(dim, num_heads * self.d + dim_out, 1, bias=qkv_bias)
        for layer in (self.q, self.kv):
            nn.init.trunc_normal_(layer.weight, std=dim**-0.5)
        self.pos_embed = new_tables(self.window, self.window, self.d)
        self.proj = nn.Linear(dim_out, dim) if out_proj else None

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        heads, block, window, halo = self.num_heads, self.block_size, self.window, self.halo_size
        rows, columns, size = h // block, w // block, block // self.query_stride
        q = self.q(x).view(b, heads, self.d, rows, size, columns, size)
        q = q.permute(0, 3, 5, 1, 4, 6, 2).reshape(b * rows * columns, heads, size, size, self.d)
        kv = F.unfold(self.kv(x), window, padding=halo, stride=block)
        kv = kv.view(b, heads, -1, window**2, rows * columns).permute(0, 4, 1, 3, 2).flatten(0, 1)
        k, v = kv.tensor_split((self.d,), -1)
        scale = self.d**-0.5
        positions = position_scores(q, self.pos_embed) * (scale if self.scale_pos_embed else 1)
        scores = q.flatten(2, 3) @ k.transpose(2, 3) * scale + positions
        if self.mask_padding:
            inside = F.unfold(torch.ones_like(x[:1, :1]), window, padding=halo, stride=block)
            hidden = (inside[0] == 0).transpose(0, 1).repeat(b, 1)
            scores = scores.masked_fill(hidden[:, None, None], -1e9)
        weights = torch.softmax(scores, dim=-1)
        record(self, "weights", weights)
        out = (weights @ v).view(b, rows, columns, heads, size, size, -1).permute(0, 3, 6, 1, 4, 2, 5)
        out = out.reshape(b, -1, rows * size, columns * size)
        out = F.avg_pool2d(out, 2) if self.pools else out
        return out if self.proj is None else self.proj(out.movedim(1, -1)).movedim(-1, 1)
