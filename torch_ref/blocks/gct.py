"""The gated channel transformation (Yang et al. 2020)."""

import torch
from torch import Tensor, nn

from ..maps import record


class GatedChannelTransformation(nn.Module):
    """Scales each channel of a map (b, c, h, w) by a gate from its norm, relative to that of all channels."""

    def __init__(self, num_channels: int, epsilon: float = 1e-5, mode: str = "l2", after_relu: bool = False):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, num_channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, num_channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, num_channels, 1, 1))
        self.epsilon = epsilon
        self.mode = mode
        self.after_relu = after_relu

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "l2":
            embedding = self.alpha * ((x**2).sum((2, 3), keepdim=True) + self.epsilon).sqrt()
            size = ((embedding**2).mean(1, keepdim=True) + self.epsilon).sqrt()
        else:
            embedding = self.alpha * (x if self.after_relu else x.abs()).sum((2, 3), keepdim=True)
            size = embedding.abs().mean(1, keepdim=True) + self.epsilon
        gate = 1 + torch.tanh(embedding * self.gamma / size + self.beta)
        record(self, "gate", gate)
        return x * gate
