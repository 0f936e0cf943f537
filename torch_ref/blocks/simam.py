"""SimAM (Yang et al. 2021)."""

import torch
from torch import Tensor, nn

from ..maps import record


class SimAM(nn.Module):
    """Scales each element of a map (b, c, h, w) by a gate from its distance to its channel's mean."""

    def __init__(self, e_lambda: float = 1e-4):
        super().__init__()
        self.e_lambda = e_lambda

    def forward(self, x: Tensor) -> Tensor:
        squares = (x - x.mean((2, 3), keepdim=True)) ** 2
        variance = squares.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)
        gate = torch.sigmoid(squares / (4 * (variance + self.e_lambda)) + 0.5)
        record(self, "gate", gate)
        return x * gate
