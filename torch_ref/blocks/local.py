"""Efficient local attention (Xu & Wan 2024), following timm."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record


class EfficientLocalAttention(nn.Module):
    """Scales a map (b, c, h, w) by a gate per row and a gate per column, each channel by itself."""

    def __init__(self, channels: int, kernel_size: int = 7, bias: bool = False, has_skip: bool = False):
        super().__init__()
        pad = kernel_size // 2
        self.conv_h = nn.Conv2d(channels, channels, (kernel_size, 1), padding=(pad, 0), groups=channels, bias=bias)
        self.conv_w = nn.Conv2d(channels, channels, (1, kernel_size), padding=(0, pad), groups=channels, bias=bias)
        self.norm_h = nn.GroupNorm(1, channels)
        self.norm_w = nn.GroupNorm(1, channels)
        self.has_skip = has_skip

    def forward(self, x: Tensor) -> Tensor:
        height_gate = torch.sigmoid(F.silu(self.norm_h(self.conv_h(x.mean(3, keepdim=True)))))
        width_gate = torch.sigmoid(F.silu(self.norm_w(self.conv_w(x.mean(2, keepdim=True)))))
        record(self, "height_gate", height_gate)
        record(self, "width_gate", width_gate)
        out = x * height_gate * width_gate
        return out + x if self.has_skip else out
