"""ParNet's block (Goyal et al. 2022), following the authors' code."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record


class _ConvNorm(nn.Sequential):
    def __init__(self, channels: int, kernel_size: int, bias: bool):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.bn = nn.BatchNorm2d(channels)


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, bias: bool):
        super().__init__()
        self.cvsig = nn.Sequential()
        self.cvsig.conv = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.cvsig(x.mean((2, 3), keepdim=True)))


class ParNetAttention(nn.Module):
    """Adds two convolutions of a map (b, c, h, w) and the map itself, gated by channel."""

    def __init__(self, channel: int = 512, skip_norm: bool = True, bias: bool = False):
        super().__init__()
        self.rbr_identity = nn.BatchNorm2d(channel) if skip_norm else nn.Identity()
        self.rbr_dense = _ConvNorm(channel, 3, bias)
        self.rbr_1x1 = _ConvNorm(channel, 1, bias)
        self.se = _SqueezeExcite(channel, bias)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.rbr_identity(x)
        gate = self.se(skip)
        record(self, "gate", gate)
        return F.silu(self.rbr_dense(x) + self.rbr_1x1(x) + skip * gate)
