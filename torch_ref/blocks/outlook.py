"""Outlook attention (Yuan et al. 2022)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record


class OutlookAttention(nn.Module):
    """Map (b, dim, h, w) -> (b, dim, h, w): each place says how the values around it are mixed."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int = 3,
        padding: int = 1,
        stride: int = 1,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ):
        super().__init__()
        self.num_heads, self.kernel_size, self.padding, self.stride = num_heads, kernel_size, padding, stride
        self.scale = (dim // num_heads) ** -0.5
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.attn = nn.Linear(dim, kernel_size**4 * num_heads)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        heads, area = self.num_heads, self.kernel_size**2
        windows = {"kernel_size": self.kernel_size, "padding": self.padding, "stride": self.stride}
        v = self.v(x.movedim(1, -1)).movedim(-1, 1)
        v = F.unfold(v, **windows).view(b, heads, c // heads, area, -1).permute(0, 1, 4, 3, 2)
        pooled = F.avg_pool2d(x, self.stride, self.stride, ceil_mode=True).flatten(2).transpose(1, 2)
        scores = self.attn(pooled).view(b, -1, heads, area, area).transpose(1, 2) * self.scale
        weights = self.attn_drop(torch.softmax(scores, dim=-1))
        record(self, "weights", weights.flatten(2, 3))
        out = (weights @ v).permute(0, 1, 4, 3, 2).reshape(b, c * area, -1)
        out = F.fold(out, (h, w), **windows)
        projected: Tensor = self.proj_drop(self.proj(out.movedim(1, -1))).movedim(-1, 1)
        return projected
