"""Criss-cross attention (Huang et al. 2019)."""

import torch
from torch import Tensor, nn

from ..maps import record


class CrissCrossAttention(nn.Module):
    """Adds to each place of a map (b, c, h, w) a weighted mean over its row and column."""

    def __init__(self, in_dim: int):
        super().__init__()
        self.query_conv = nn.Conv2d(in_dim, in_dim // 8, 1)
        self.key_conv = nn.Conv2d(in_dim, in_dim // 8, 1)
        self.value_conv = nn.Conv2d(in_dim, in_dim, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query_conv(x), self.key_conv(x), self.value_conv(x)
        height = x.size(2)
        column = torch.einsum("bdhw,bdgw->bhwg", query, key)
        itself = torch.eye(height, dtype=torch.bool, device=x.device)[:, None]
        column = column.masked_fill(itself, float("-inf"))
        row = torch.einsum("bdhw,bdhv->bhwv", query, key)
        weights = torch.softmax(torch.cat([column, row], dim=-1), dim=-1)
        record(self, "weights", weights.flatten(1, 2)[:, None])
        out = torch.einsum("bhwg,bcgw->bchw", weights[..., :height], value)
        out = out + torch.einsum("bhwv,bchv->bchw", weights[..., height:], value)
        return x + self.gamma * out
