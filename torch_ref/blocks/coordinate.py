"""Coordinate attention (Hou et al. 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record


class CoordinateAttention(nn.Module):
    """Scales a map (b, c, h, w) by a gate per row and a gate per column."""

    def __init__(
        self,
        channels: int,
        reduction: int = 32,
        rd_channels: int | None = None,
        bias: bool = True,
        has_skip: bool = False,
    ):
        super().__init__()
        hidden = max(8, channels // reduction) if rd_channels is None else rd_channels
        self.conv1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv_h = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.conv_w = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.has_skip = has_skip

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        features = F.hardswish(self.bn1(self.conv1(torch.cat([rows, columns], dim=2))))
        rows, columns = features.split([x.size(2), x.size(3)], dim=2)
        height_gate = torch.sigmoid(self.conv_h(rows))
        width_gate = torch.sigmoid(self.conv_w(columns.transpose(2, 3)))
        record(self, "height_gate", height_gate)
        record(self, "width_gate", width_gate)
        out = x * height_gate * width_gate
        return out + x if self.has_skip else out
