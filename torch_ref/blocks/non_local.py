"""Non-local block (Wang et al. 2018), in the form of timm."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record
from ..widths import reduced_width


class NonLocalAttention(nn.Module):
    """Adds to each place of a map (b, c, h, w) a weighted mean over all places."""

    def __init__(
        self,
        in_channels: int,
        rd_ratio: float = 1 / 8,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        scale: float | None = None,
        sub_sample: bool = False,
    ):
        super().__init__()
        hidden = reduced_width(in_channels, rd_ratio, rd_channels, rd_divisor, 0.9)
        self.scale = in_channels**-0.5 if scale is None else scale
        self.sub_sample = sub_sample
        self.t = nn.Conv2d(in_channels, hidden, 1)
        self.p = nn.Conv2d(in_channels, hidden, 1)
        self.g = nn.Conv2d(in_channels, hidden, 1)
        self.z = nn.Conv2d(hidden, in_channels, 1)
        self.norm = nn.BatchNorm2d(in_channels)
        for conv in (self.t, self.p, self.g, self.z):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.t(x), self.p(x), self.g(x)
        if self.sub_sample:
            key, value = F.max_pool2d(key, 2), F.max_pool2d(value, 2)
        scores = torch.einsum("bcn,bcm->bnm", query.flatten(2), key.flatten(2)) * self.scale
        weights = torch.softmax(scores, dim=-1)
        record(self, "weights", weights[:, None])
        out = torch.einsum("bnm,bcm->bcn", weights, value.flatten(2))
        return x + self.norm(self.z(out.reshape(query.shape)))
