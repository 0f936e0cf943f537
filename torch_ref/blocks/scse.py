"""Concurrent spatial and channel squeeze and excitation (Roy et al. 2018)."""

import torch
from torch import Tensor, nn

from ..maps import record


class SCSE(nn.Module):
    """Joins a map (b, c, h, w) scaled per channel and the same map scaled per pixel."""

    def __init__(self, in_channels: int, reduction: int = 16, combine: str = "add"):
        super().__init__()
        hidden = in_channels // reduction
        self.cSE = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, in_channels, 1)
        )
        self.sSE = nn.Sequential(nn.Conv2d(in_channels, 1, 1))
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        channel_gate, spatial_gate = torch.sigmoid(self.cSE(x)), torch.sigmoid(self.sSE(x))
        record(self, "channel_gate", channel_gate)
        record(self, "spatial_gate", spatial_gate)
        by_channel, by_place = x * channel_gate, x * spatial_gate
        return by_channel + by_place if self.combine == "add" else torch.max(by_channel, by_place)
