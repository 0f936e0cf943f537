"""Global response normalisation (Woo et al. 2023)."""

import torch
from torch import Tensor, nn

from ..maps import record


class GlobalResponseNorm(nn.Module):
    """Scales each channel of a map (b, c, h, w) by its norm relative to the mean norm of the channels."""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.norm(dim=(2, 3), keepdim=True)
        gate = norm / (norm.mean(1, keepdim=True) + self.eps)
        record(self, "gate", gate)
        return x + self.weight[:, None, None] * (x * gate) + self.bias[:, None, None]
