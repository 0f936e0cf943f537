"""Spatial group-wise enhancement (Li et al. 2019)."""

import torch
from torch import Tensor, nn

from ..maps import record


class SpatialGroupEnhance(nn.Module):
    """Scales the pixels of each group of channels of a map (b, c, h, w) by their likeness to the group's mean."""

    def __init__(self, groups: int = 64):
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.zeros(1, groups, 1, 1))
        self.bias = nn.Parameter(torch.ones(1, groups, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        parts = x.view(b, self.groups, -1, h, w)
        likeness = (parts * parts.mean((3, 4), keepdim=True)).sum(2)
        centred = likeness - likeness.mean((2, 3), keepdim=True)
        normed = centred / (centred.std((2, 3), keepdim=True) + 1e-5)
        gate = torch.sigmoid(normed * self.weight + self.bias)
        record(self, "gate", gate)
        return (parts * gate.unsqueeze(2)).view_as(x)
