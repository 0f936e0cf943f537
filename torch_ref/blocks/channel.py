"""Channel attention without a spatial gate, as in the second tutorial."""

import torch
from torch import Tensor, nn

from ..maps import record


class ChannelAttention(nn.Module):
    """Computes the gate (b, c, 1, 1) of a map (b, c, h, w), without applying it."""

    def __init__(self, in_planes: int, ratio: int = 16):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.max_pool = nn.AdaptiveMaxPool2d(1)
        self.fc1 = nn.Conv2d(in_planes, in_planes // ratio, 1, bias=False)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Conv2d(in_planes // ratio, in_planes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        avg_out = self.fc2(self.relu1(self.fc1(self.avg_pool(x))))
        max_out = self.fc2(self.relu1(self.fc1(self.max_pool(x))))
        gate = torch.sigmoid(avg_out + max_out)
        record(self, "gate", gate)
        return gate


class UseAttentionModel(nn.Module):
    """Scales each channel of a map (b, c, h, w) by its `ChannelAttention` gate."""

    def __init__(self, in_planes: int, ratio: int = 16):
        super().__init__()
        self.channel_attention = ChannelAttention(in_planes, ratio)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.channel_attention(x)
