"""Squeeze-and-excitation (Hu et al. 2018) and its effective variant (Lee & Park 2020), named as in timm."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record
from ..widths import reduced_width


class SqueezeExcite(nn.Module):
    """Scales each channel of a map (b, c, h, w) by a gate from an MLP of the pooled map."""

    def __init__(
        self,
        channels: int,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        bias: bool = True,
    ):
        super().__init__()
        hidden = reduced_width(channels, rd_ratio, rd_channels, rd_divisor)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(pooled))))
        record(self, "gate", gate)
        return x * gate


class EffectiveSqueezeExcite(nn.Module):
    """Scales each channel of a map (b, c, h, w) by a hard gate from one layer of the pooled map."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # F.hardsigmoid is equal, but for its gradient of 1/6, which it has in float32 for float64 too.
        gate = F.relu6(self.fc(x.mean((2, 3), keepdim=True)) + 3) / 6
        record(self, "gate", gate)
        return x * gate
