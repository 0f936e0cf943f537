"""Triplet attention (Misra et al. 2021)."""

import torch
from torch import Tensor, nn

from ..maps import record
from .cbam import BasicConv, ChannelPool


class TripletAttention(nn.Module):
    """The mean of a map (b, c, h, w) scaled by three gates, each pooled over one of its axes."""

    def __init__(self, no_spatial: bool = False):
        super().__init__()
        self.cw = _Gate()
        self.hc = _Gate()
        self.hw = None if no_spatial else _Gate()

    def forward(self, x: Tensor) -> Tensor:
        width_gate = self.cw(x.transpose(1, 2)).transpose(1, 2)
        height_gate = self.hc(x.transpose(1, 3)).transpose(1, 3)
        record(self, "width_gate", width_gate)
        record(self, "height_gate", height_gate)
        if self.hw is None:
            return (x * width_gate + x * height_gate) / 2
        spatial_gate = self.hw(x)
        record(self, "spatial_gate", spatial_gate)
        return (x * width_gate + x * height_gate + x * spatial_gate) / 3


class _Gate(nn.Module):
    """A gate (b, 1, h, w) from the maximum and the mean over the first of the axes (b, c, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.compress = ChannelPool()
        self.conv = BasicConv(2, 1, 7, padding=3, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(self.compress(x)))
