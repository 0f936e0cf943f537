"""CBAM (Woo et al. 2018), following the authors' code."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record


class BasicConv(nn.Module):
    """Convolution with optional BatchNorm and ReLU."""

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        relu: bool = True,
        bn: bool = True,
        bias: bool = False,
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_planes, out_planes, kernel_size, stride, padding, dilation, groups, bias)
        self.bn = nn.BatchNorm2d(out_planes, eps=1e-5, momentum=0.01) if bn else None
        self.relu = nn.ReLU() if relu else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        if self.relu is not None:
            x = self.relu(x)
        return x


class ChannelGate(nn.Module):
    """Scales each channel of a map (b, c, h, w) by a gate from a shared MLP."""

    def __init__(
        self,
        gate_channels: int,
        reduction_ratio: int = 16,
        pool_types: Sequence[str] = ("avg", "max"),
        mlp_bias: bool = True,
    ):
        super().__init__()
        hidden = gate_channels // reduction_ratio
        self.mlp = nn.Sequential(
            nn.Flatten(),
            nn.Linear(gate_channels, hidden, mlp_bias),
            nn.ReLU(),
            nn.Linear(hidden, gate_channels, mlp_bias),
        )
        self.pool_types = tuple(pool_types)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.sigmoid(sum(self.mlp(pool(x, pool_type)) for pool_type in self.pool_types))
        scale = scale[:, :, None, None]
        record(self, "gate", scale)
        return x * scale


def pool(x: Tensor, pool_type: str) -> Tensor:
    """Pools a map (b, c, h, w) over all pixels; "lse" returns (b, c, 1), the others (b, c, 1, 1)."""
    size = (x.size(2), x.size(3))
    if pool_type == "avg":
        return F.avg_pool2d(x, size, stride=size)
    if pool_type == "max":
        return F.max_pool2d(x, size, stride=size)
    if pool_type == "lp":
        return F.lp_pool2d(x, 2, size, stride=size)
    if pool_type == "lse":
        return logsumexp_2d(x)
    raise ValueError(f"pool_types must be among avg, max, lp and lse, got {pool_type!r}")


def logsumexp_2d(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    s, _ = torch.max(flat, dim=2, keepdim=True)
    return s + (flat - s).exp().sum(dim=2, keepdim=True).log()


class ChannelPool(nn.Module):
    """Stacks the maximum and the mean over channels, in this order."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)], dim=1)


class SpatialGate(nn.Module):
    """Scales each pixel of a map (b, c, h, w) by a gate from a 7x7 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.compress = ChannelPool()
        self.spatial = BasicConv(2, 1, 7, padding=3, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.sigmoid(self.spatial(self.compress(x)))
        record(self, "gate", scale)
        return x * scale


class CBAM(nn.Module):
    """Channel gate, then an optional spatial gate."""

    def __init__(
        self,
        gate_channels: int,
        reduction_ratio: int = 16,
        pool_types: Sequence[str] = ("avg", "max"),
        no_spatial: bool = True,
        mlp_bias: bool = True,
    ):
        super().__init__()
        self.channel_gate = ChannelGate(gate_channels, reduction_ratio, pool_types, mlp_bias)
        self.spatial_gate = None if no_spatial else SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel_gate(x)
        return x if self.spatial_gate is None else self.spatial_gate(x)
