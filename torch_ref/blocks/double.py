"""Double attention (Chen et al. 2018)."""

import torch
from torch import Tensor, nn

from ..maps import record


class DoubleAttention(nn.Module):
    """Gathers features from all places of a map (b, c, h, w), and distributes them to each place."""

    def __init__(self, in_channels: int, c_m: int, c_n: int, reconstruct: bool = True):
        super().__init__()
        self.convA = nn.Conv2d(in_channels, c_m, 1)
        self.convB = nn.Conv2d(in_channels, c_n, 1)
        self.convV = nn.Conv2d(in_channels, c_n, 1)
        self.conv_reconstruct = nn.Conv2d(c_m, in_channels, 1) if reconstruct else None

    def forward(self, x: Tensor) -> Tensor:
        gather = torch.softmax(self.convB(x).flatten(2), dim=2)
        distribute = torch.softmax(self.convV(x).flatten(2), dim=1)
        record(self, "gather_weights", gather[:, None])
        record(self, "distribute_weights", distribute.transpose(1, 2)[:, None])
        gathered = torch.einsum("bmn,bkn->bmk", self.convA(x).flatten(2), gather)
        out = torch.einsum("bmk,bkn->bmn", gathered, distribute).unflatten(2, x.shape[2:])
        return out if self.conv_reconstruct is None else self.conv_reconstruct(out)
