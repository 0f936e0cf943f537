"""Class-specific residual attention (Zhu & Wu 2021), following the authors' code."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record

TEMPERATURES = {1: (1,), 2: (1, 99), 4: (1, 2, 4, 99), 6: (1, 2, 3, 4, 5, 99), 8: (1, 2, 3, 4, 5, 6, 7, 99)}


class ClassSpecificResidualAttention(nn.Module):
    """Classifies each pixel of a map (b, c, h, w) and adds to the mean of the scores that of the attended pixels."""

    def __init__(
        self, input_dim: int, num_classes: int, temperature: float = 1, lam: float = 0.1, normalize: bool = True
    ):
        super().__init__()
        self.temperature, self.lam, self.normalize = temperature, lam, normalize
        self.head = nn.Conv2d(input_dim, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.head(x).flatten(2)
        if self.normalize:
            scores = scores / self.head.weight.flatten(1).norm(dim=1)[:, None]
        if self.temperature == 99:
            attended, place = scores.max(dim=2)
            weights = F.one_hot(place, scores.shape[2]).to(scores.dtype)
        else:
            weights = (self.temperature * scores).softmax(dim=2)
            attended = (weights * scores).sum(2)
        record(self, "weights", weights.unsqueeze(1))
        return scores.mean(2) + self.lam * attended


class MultiHeadResidualAttention(nn.Module):
    """Adds the logits of several heads with temperatures of their own."""

    def __init__(self, num_heads: int, lam: float, input_dim: int, num_classes: int):
        super().__init__()
        self.multi_head = nn.ModuleList(
            ClassSpecificResidualAttention(input_dim, num_classes, temperature, lam)
            for temperature in TEMPERATURES[num_heads]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([head(x) for head in self.multi_head]).sum(0)
