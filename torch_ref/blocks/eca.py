"""Efficient channel attention (Wang et al. 2020)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record


class EfficientChannelAttention(nn.Module):
    """Scales each channel of a map (b, c, h, w) by a gate from a 1D convolution over the channels."""

    def __init__(
        self,
        channels: int | None = None,
        kernel_size: int | None = None,
        gamma: int = 2,
        beta: int = 1,
        circular: bool = False,
    ):
        super().__init__()
        kernel_size = 3 if kernel_size is None else kernel_size
        if channels is not None:
            t = int(abs(math.log2(channels) + beta) / gamma)
            kernel_size = max(t if t % 2 else t + 1, 3)
        self.padding = kernel_size // 2
        self.circular = circular
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=0 if circular else self.padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3)).unsqueeze(1)
        if self.circular:
            y = F.pad(y, (self.padding, self.padding), mode="circular")
        gate = torch.sigmoid(self.conv(y)).view(x.size(0), -1, 1, 1)
        record(self, "gate", gate)
        return x * gate
