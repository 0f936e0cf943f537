"""Polarized self-attention (Liu et al. 2021)."""

import torch
from torch import Tensor, nn

from ..maps import record


class _Polarized(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.ch_wv = nn.Conv2d(channels, half, 1)
        self.ch_wq = nn.Conv2d(channels, 1, 1)
        self.ch_wz = nn.Conv2d(half, channels, 1)
        self.ln = nn.LayerNorm(channels)
        self.sp_wv = nn.Conv2d(channels, half, 1)
        self.sp_wq = nn.Conv2d(channels, half, 1)

    def channel_gate(self, x: Tensor) -> Tensor:
        weights = self.ch_wq(x).flatten(2).softmax(-1).transpose(1, 2)
        pooled = self.ch_wv(x).flatten(2) @ weights
        gate = torch.sigmoid(self.ln(self.ch_wz(pooled[..., None])[:, :, 0, 0]))[:, :, None, None]
        record(self, "channel_gate", gate)
        return gate

    def spatial_gate(self, x: Tensor) -> Tensor:
        weights = self.sp_wq(x).mean((2, 3)).softmax(-1)[:, None]
        gate = torch.sigmoid((weights @ self.sp_wv(x).flatten(2)).view(x.size(0), 1, x.size(2), x.size(3)))
        record(self, "spatial_gate", gate)
        return gate


class ParallelPolarizedSelfAttention(_Polarized):
    """Adds a map (b, c, h, w) scaled per channel and the same map scaled per pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.channel_gate(x) + x * self.spatial_gate(x)


class SequentialPolarizedSelfAttention(_Polarized):
    """Scales a map (b, c, h, w) per channel and the result per pixel."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_gate(x)
        return x * self.spatial_gate(x)
