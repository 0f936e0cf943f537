"""Axial attention (Ho et al. 2019)."""

import torch
from torch import Tensor, nn

from ..maps import record


class AxialAttention(nn.Module):
    """Multi-head attention along the columns and along the rows of a map (b, c, h, w)."""

    def __init__(self, dim: int, heads: int = 8, dim_heads: int | None = None, sum_axial_out: bool = True):
        super().__init__()
        self.sum_axial_out = sum_axial_out
        self.axial_attentions = nn.ModuleList(
            nn.ModuleDict({"fn": _AxisAttention(dim, heads, dim_heads or dim // heads)}) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        height = self.attend("height", x)
        return height + self.attend("width", x) if self.sum_axial_out else self.attend("width", height)

    def attend(self, axis: str, x: Tensor) -> Tensor:
        lines = x.permute(0, 3, 2, 1) if axis == "height" else x.permute(0, 2, 3, 1)
        out, weights = self.axial_attentions[axis == "width"]["fn"](lines.flatten(0, 1))
        record(self, f"{axis}_weights", weights)
        out = out.reshape(lines.shape)
        return out.permute(0, 3, 2, 1) if axis == "height" else out.permute(0, 3, 1, 2)


class _AxisAttention(nn.Module):
    def __init__(self, dim: int, heads: int, dim_heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, heads * dim_heads, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * dim_heads, bias=False)
        self.to_out = nn.Linear(heads * dim_heads, dim)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        projected = (self.to_q(tokens), *self.to_kv(tokens).chunk(2, dim=-1))
        query, key, value = (one.unflatten(2, (self.heads, -1)).transpose(1, 2) for one in projected)
        weights = torch.softmax(query @ key.transpose(2, 3) / query.size(-1) ** 0.5, dim=-1)
        return self.to_out((weights @ value).transpose(1, 2).flatten(2)), weights
