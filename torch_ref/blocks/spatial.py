"""Spatial attention for windows of sensor data, as in the third tutorial."""

import torch
from torch import Tensor, nn

from ..maps import record


class SpatialAttentionModule(nn.Module):
    """Scales each (time, sensor) position of windows (b, c, series, modal)."""

    def __init__(self) -> None:
        super().__init__()
        self.att_fc = nn.Sequential(nn.Conv2d(1, 1, (3, 1), (1, 1), (1, 0)), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        gate = self.att_fc(torch.mean(x, dim=1, keepdim=True))
        record(self, "gate", gate)
        return x * gate
