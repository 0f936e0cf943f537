"""Separable self-attention of MobileViTv2 (Mehta & Rastegari 2022)."""

import torch
from torch import Tensor, nn

from ..maps import record


class SeparableSelfAttention(nn.Module):
    """x (b, embed_dim, p, n) -> the same, for p pixels in each of n patches."""

    def __init__(
        self, embed_dim: int, attn_drop: float = 0.0, proj_drop: float = 0.0, bias: bool = True, relu: bool = True
    ):
        super().__init__()
        self.embed_dim, self.relu = embed_dim, relu
        self.qkv_proj = nn.Conv2d(embed_dim, 1 + 2 * embed_dim, 1, bias=bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.out_proj = nn.Conv2d(embed_dim, embed_dim, 1, bias=bias)
        self.out_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        score, key, value = self.qkv_proj(x).split([1, self.embed_dim, self.embed_dim], dim=1)
        weights = self.attn_drop(torch.softmax(score, dim=-1))
        record(self, "spatial_gate", weights)
        context = (key * weights).sum(-1, keepdim=True)
        value = torch.relu(value) if self.relu else value
        return self.out_drop(self.out_proj(value * context))
