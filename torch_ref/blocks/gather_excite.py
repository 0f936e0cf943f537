"""Gather-excite (Hu et al. 2018), named as in timm."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record
from ..widths import reduced_width


class GatherExcite(nn.Module):
    """Scales a map (b, c, h, w) by a gate from its neighbourhoods, resized to the map."""

    def __init__(
        self,
        channels: int,
        extra_params: bool = False,
        extent: int = 0,
        use_mlp: bool = True,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
    ):
        super().__init__()
        self.extent = extent
        self.gather = None
        if extra_params:
            self.gather = nn.Sequential()
            for i in range(1, int(math.log2(extent)) + 1):
                if i > 1:
                    self.gather.add_module(f"act{i - 1}", nn.ReLU())
                conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
                self.gather.add_module(f"conv{i}", conv)
                self.gather.add_module(f"norm{i}", nn.BatchNorm2d(channels))
        self.mlp = None
        if use_mlp:
            hidden = reduced_width(channels, rd_ratio, rd_channels, rd_divisor)
            self.mlp = nn.ModuleDict({"fc1": nn.Conv2d(channels, hidden, 1), "fc2": nn.Conv2d(hidden, channels, 1)})

    def forward(self, x: Tensor) -> Tensor:
        if self.gather is not None:
            gathered = self.gather(x)
        elif self.extent == 0:
            gathered = x.mean((2, 3), keepdim=True)
        else:
            kernel, padding = 2 * self.extent - 1, self.extent - 1
            gathered = F.avg_pool2d(x, kernel, self.extent, padding, count_include_pad=False)
        if self.mlp is not None:
            gathered = self.mlp["fc2"](F.relu(self.mlp["fc1"](gathered)))
        gate = torch.sigmoid(F.interpolate(gathered, x.shape[2:]))
        record(self, "gate", gate)
        return x * gate
