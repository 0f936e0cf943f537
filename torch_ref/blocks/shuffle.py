"""Shuffle attention (Zhang & Yang 2021)."""

import torch
from torch import Tensor, nn

from ..maps import record


class ShuffleAttention(nn.Module):
    """Scales half of each group of a map (b, c, h, w) per channel, the other half per element, and shuffles."""

    def __init__(self, channels: int, groups: int = 8):
        super().__init__()
        half = channels // (2 * groups)
        self.groups = groups
        self.cweight = nn.Parameter(torch.zeros(1, half, 1, 1))
        self.cbias = nn.Parameter(torch.ones(1, half, 1, 1))
        self.sweight = nn.Parameter(torch.zeros(1, half, 1, 1))
        self.sbias = nn.Parameter(torch.ones(1, half, 1, 1))
        self.gn = nn.GroupNorm(half, half)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        first, second = x.reshape(b * self.groups, -1, h, w).chunk(2, dim=1)
        channel_gate = torch.sigmoid(self.cweight * first.mean((2, 3), keepdim=True) + self.cbias)
        spatial_gate = torch.sigmoid(self.sweight * self.gn(second) + self.sbias)
        gate = torch.cat([channel_gate.expand(-1, -1, h, w), spatial_gate], dim=1)
        record(self, "gate", gate.reshape(b, c, h, w))
        out = torch.cat([first * channel_gate, second * spatial_gate], dim=1)
        return out.reshape(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
