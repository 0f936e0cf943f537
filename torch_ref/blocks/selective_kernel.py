"""Selective kernels (Li et al. 2019), in the form of timm."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record
from ..widths import reduced_width


class _Path(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, dilation: int, groups: int):
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Select(nn.Module):
    def __init__(self, channels: int, num_paths: int, hidden: int):
        super().__init__()
        self.num_paths = num_paths
        self.fc_reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.fc_select = nn.Conv2d(hidden, channels * num_paths, 1, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        scores = self.fc_select(F.relu(self.bn(self.fc_reduce(pooled))))
        return scores.view(len(pooled), self.num_paths, -1).softmax(dim=1)


class SelectiveKernel(nn.Module):
    """Convolves a map (b, c, h, w) with kernels of several sizes and adds the results, weighted by channel."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int | Sequence[int] = (3, 5),
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        keep_3x3: bool = True,
        split_input: bool = True,
    ):
        super().__init__()
        out_channels = out_channels or in_channels
        sizes = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.split_input = split_input
        seen = in_channels // len(sizes) if split_input else in_channels
        self.paths = nn.ModuleList(
            _Path(seen, out_channels, 3, stride, dilation * (size - 1) // 2, groups)
            if keep_3x3
            else _Path(seen, out_channels, size, stride, dilation, groups)
            for size in sizes
        )
        hidden = reduced_width(out_channels, rd_ratio, rd_channels, rd_divisor, 0.9)
        self.attn = _Select(out_channels, len(sizes), hidden)

    def forward(self, x: Tensor) -> Tensor:
        n = len(self.paths)
        parts = x.chunk(n, dim=1) if self.split_input else (x,) * n
        maps = torch.stack([path(part) for path, part in zip(self.paths, parts, strict=True)], dim=1)
        weights = self.attn(maps.sum(1).mean((2, 3), keepdim=True))
        record(self, "weights", weights)
        return (maps * weights[..., None, None]).sum(1)
