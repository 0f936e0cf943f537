"""Bilinear attentional transform (Chi et al. 2020), in the form of timm."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record
from ..widths import reduced_width


class BatNonLocal(nn.Module):
    """Adds to a map (b, c, h, w) what two attention matrices make of its rows and columns of blocks of places."""

    def __init__(
        self,
        in_channels: int,
        block_size: int = 7,
        groups: int = 2,
        rd_ratio: float = 0.25,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        drop_rate: float = 0.2,
    ):
        super().__init__()
        hidden = reduced_width(in_channels, rd_ratio, rd_channels, rd_divisor, 0.9)
        self.conv1 = _ConvNormRelu(in_channels, hidden)
        self.ba = _BilinearTransform(hidden, block_size, groups)
        self.conv2 = _ConvNormRelu(hidden, in_channels)
        self.dropout = nn.Dropout2d(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        out, rows, columns = self.ba(self.conv1(x))
        record(self, "row_weights", rows)
        record(self, "column_weights", columns.transpose(2, 3))
        return x + self.dropout(self.conv2(out))


class _BilinearTransform(nn.Module):
    def __init__(self, channels: int, block_size: int, groups: int):
        super().__init__()
        self.block_size, self.groups = block_size, groups
        self.conv1 = _ConvNormRelu(channels, groups)
        self.conv_p = nn.Conv2d(groups, block_size * block_size * groups, (block_size, 1))
        self.conv_q = nn.Conv2d(groups, block_size * block_size * groups, (1, block_size))
        self.conv2 = _ConvNormRelu(channels, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, c, height, width = x.shape
        s, pooled = self.block_size, self.conv1(x)
        p = self.conv_p(F.adaptive_max_pool2d(pooled, (s, 1))).reshape(b, self.groups, s, s)
        q = self.conv_q(F.adaptive_max_pool2d(pooled, (1, s))).reshape(b, self.groups, s, s)
        # Sigmoids over their sum, also where all of them round to 0.
        p, q = torch.softmax(F.logsigmoid(p), dim=3), torch.softmax(F.logsigmoid(q), dim=2)
        # Places keep their offset within a block.
        blocks = x.reshape(b, self.groups, c // self.groups, s, height // s, s, width // s)
        out = torch.einsum("bgij,bgcjukv,bgkl->bgciulv", p, blocks, q)
        return self.conv2(out.reshape(x.shape)), p, q


class _ConvNormRelu(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))
