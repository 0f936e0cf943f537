"""Point-wise spatial attention (YOLOv4's modified SAM)."""

import torch
from torch import Tensor, nn

from ..maps import record


class PointwiseSpatialAttention(nn.Module):
    """Scales each element of a map (b, c, h, w) by a gate from a 1x1 convolution."""

    def __init__(self, channels: int, bn: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=not bn)
        self.bn = nn.BatchNorm2d(channels) if bn else None

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv(x)
        if self.bn is not None:
            gate = self.bn(gate)
        gate = torch.sigmoid(gate)
        record(self, "gate", gate)
        return x * gate
