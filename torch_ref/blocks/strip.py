"""Strip attention, timm's gate after strip pooling (Hou et al. 2020)."""

import torch
from torch import Tensor, nn

from ..maps import record


class StripAttention(nn.Module):
    """Scales a map (b, c, h, w) by the sigmoid of a sum over its row's and its column's mean."""

    def __init__(
        self, channels: int, use_conv: bool = True, kernel_size: int = 3, bias: bool = False, has_skip: bool = False
    ):
        super().__init__()
        pad = kernel_size // 2
        self.conv_h: nn.Module = nn.Identity()
        self.conv_w: nn.Module = nn.Identity()
        if use_conv:
            self.conv_h = nn.Conv2d(channels, channels, (kernel_size, 1), padding=(pad, 0), groups=channels, bias=bias)
            self.conv_w = nn.Conv2d(channels, channels, (1, kernel_size), padding=(0, pad), groups=channels, bias=bias)
        self.has_skip = has_skip

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.conv_h(x.mean(3, keepdim=True)) + self.conv_w(x.mean(2, keepdim=True)))
        record(self, "gate", gate)
        return x * gate + x if self.has_skip else x * gate
