"""Pyramid split attention (Zhang et al. 2022), following the authors' code."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return torch.sigmoid(self.fc2(F.relu(self.fc1(pooled))))


class PyramidSplitAttention(nn.Module):
    """Convolves a map (b, c, h, w) with kernels of four sizes and weighs the results against one another."""

    def __init__(
        self,
        in_planes: int,
        planes: int,
        conv_kernels: Sequence[int] = (3, 5, 7, 9),
        stride: int = 1,
        conv_groups: Sequence[int] = (1, 4, 8, 16),
        reduction: int = 16,
    ):
        super().__init__()
        for i, (size, groups) in enumerate(zip(conv_kernels, conv_groups, strict=True), start=1):
            conv = nn.Conv2d(in_planes, planes // 4, size, stride, size // 2, groups=groups, bias=False)
            self.add_module(f"conv_{i}", conv)
        self.se = _SqueezeExcite(planes // 4, reduction)

    def forward(self, x: Tensor) -> Tensor:
        maps = [conv(x) for conv in (self.conv_1, self.conv_2, self.conv_3, self.conv_4)]
        weights = torch.stack([self.se(one) for one in maps], dim=1).softmax(dim=1)
        record(self, "weights", weights.flatten(2))
        return torch.cat([one * weights[:, i] for i, one in reversed(list(enumerate(maps)))], dim=1)
