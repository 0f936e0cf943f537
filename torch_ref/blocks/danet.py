"""Position and channel attention of DANet (Fu et al. 2019)."""

import torch
from torch import Tensor, nn

from ..maps import record


class DANetPositionAttention(nn.Module):
    """Adds to each place of a map (b, c, h, w) a weighted mean over all places."""

    def __init__(self, in_dim: int):
        super().__init__()
        self.query_conv = nn.Conv2d(in_dim, in_dim // 8, 1)
        self.key_conv = nn.Conv2d(in_dim, in_dim // 8, 1)
        self.value_conv = nn.Conv2d(in_dim, in_dim, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (conv(x).flatten(2) for conv in (self.query_conv, self.key_conv, self.value_conv))
        weights = torch.softmax(torch.einsum("bcn,bcm->bnm", query, key), dim=-1)
        record(self, "weights", weights[:, None])
        return x + self.gamma * torch.einsum("bnm,bcm->bcn", weights, value).reshape(x.shape)


class DANetChannelAttention(nn.Module):
    """Adds to each channel of a map (b, c, h, w) a weighted mean of all channels, most of the least similar ones."""

    def __init__(self, in_dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.flatten(2)
        energy = torch.matmul(channels, channels.transpose(1, 2))
        weights = torch.softmax(energy.amax(dim=-1, keepdim=True) - energy, dim=-1)
        record(self, "weights", weights[:, None])
        return x + self.gamma * torch.matmul(weights, channels).reshape(x.shape)
