"""Split attention (Zhang et al. 2022), in the form of timm."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record
from ..widths import make_divisible


class SplitAttention(nn.Module):
    """Convolves a map (b, c, h, w) to ``radix`` maps and adds them, weighted by channel."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        radix: int = 2,
        rd_ratio: float = 0.25,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        norm: bool = False,
    ):
        super().__init__()
        out_channels = out_channels or in_channels
        wide = out_channels * radix
        hidden = max(32, make_divisible(in_channels * radix * rd_ratio, rd_divisor))
        hidden = hidden if rd_channels is None else rd_channels * radix
        padding = kernel_size // 2 if padding is None else padding
        self.radix, self.groups = radix, groups
        self.conv = nn.Conv2d(
            in_channels, wide, kernel_size, stride, padding, dilation, groups=groups * radix, bias=bias
        )
        self.bn0 = nn.BatchNorm2d(wide) if norm else nn.Identity()
        self.fc1 = nn.Conv2d(out_channels, hidden, 1, groups=groups)
        self.bn1 = nn.BatchNorm2d(hidden) if norm else nn.Identity()
        self.fc2 = nn.Conv2d(hidden, wide, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        maps = F.relu(self.bn0(self.conv(x))).unflatten(1, (self.radix, -1))
        pooled = maps.sum(1).mean((2, 3), keepdim=True)
        scores = self.fc2(F.relu(self.bn1(self.fc1(pooled))))
        # From (groups, radix, channels of a group) to (radix, all channels), the order of the maps.
        scores = scores.view(len(x), self.groups, self.radix, -1).transpose(1, 2).flatten(2)
        weights = torch.sigmoid(scores) if self.radix == 1 else scores.softmax(dim=1)
        record(self, "weights", weights)
        return (maps * weights[..., None, None]).sum(1)
