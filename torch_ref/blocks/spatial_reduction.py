"""Attention to a reduced map (Wang et al. 2021 and 2022)."""

import torch
from torch import Tensor, nn

from ..maps import record


class SpatialReductionAttention(nn.Module):
    """Map (b, dim, h, w) -> (b, dim, h, w); keys and values come from a smaller map."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        sr_ratio: int = 1,
        linear_attn: bool = False,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ):
        super().__init__()
        self.num_heads, self.linear_attn = num_heads, linear_attn
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        kernel_size = 1 if linear_attn else sr_ratio
        reduces = linear_attn or sr_ratio > 1
        self.sr = nn.Conv2d(dim, dim, kernel_size, stride=kernel_size) if reduces else None
        self.norm = nn.LayerNorm(dim) if reduces else None
        self.pool = nn.AdaptiveAvgPool2d(7) if linear_attn else None
        self.act = nn.GELU() if linear_attn else None

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q = self.q(x.flatten(2).transpose(1, 2)).view(b, h * w, self.num_heads, -1).transpose(1, 2)
        small = x if self.pool is None else self.pool(x)
        small = small if self.sr is None else self.sr(small)
        tokens = small.flatten(2).transpose(1, 2)
        tokens = tokens if self.norm is None else self.norm(tokens)
        tokens = tokens if self.act is None else self.act(tokens)
        k, v = self.kv(tokens).view(b, -1, 2, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) * (c // self.num_heads) ** -0.5
        weights = self.attn_drop(torch.softmax(scores, dim=-1))
        record(self, "weights", weights)
        out: Tensor = self.proj_drop(self.proj((weights @ v).transpose(1, 2).reshape(b, h * w, c)))
        return out.transpose(1, 2).view(b, c, h, w)
