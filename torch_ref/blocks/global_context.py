"""The global context block (Cao et al. 2019), named as in timm."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..maps import record
from ..widths import reduced_width


class GlobalContext(nn.Module):
    """Scales or shifts each channel of a map (b, c, h, w) by an MLP of the pixels' weighted mean."""

    def __init__(
        self,
        channels: int,
        use_attn: bool = True,
        fuse_add: bool = False,
        fuse_scale: bool = True,
        rd_ratio: float = 1 / 8,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        eps: float = 1e-6,
    ):
        super().__init__()
        hidden = reduced_width(channels, rd_ratio, rd_channels, rd_divisor)
        self.conv_attn = nn.Conv2d(channels, 1, 1) if use_attn else None
        self.mlp_add = mlp(channels, hidden, eps) if fuse_add else None
        self.mlp_scale = mlp(channels, hidden, eps) if fuse_scale else None
        if self.conv_attn is not None:
            nn.init.kaiming_normal_(self.conv_attn.weight, mode="fan_in", nonlinearity="relu")
        if self.mlp_add is not None:
            nn.init.zeros_(self.mlp_add["fc2"].weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv_attn is None:
            context = x.mean((2, 3))
        else:
            weights = self.conv_attn(x).flatten(2).softmax(-1)
            record(self, "weights", weights.unsqueeze(1))
            context = (x.flatten(2) * weights).sum(-1)
        if self.mlp_scale is not None:
            gate = torch.sigmoid(apply(self.mlp_scale, context))
            record(self, "gate", gate)
            x = x * gate
        return x if self.mlp_add is None else x + apply(self.mlp_add, context)


def mlp(channels: int, hidden: int, eps: float) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "fc1": nn.Conv2d(channels, hidden, 1),
            "norm": nn.LayerNorm(hidden, eps),
            "fc2": nn.Conv2d(hidden, channels, 1),
        }
    )


def apply(layers: nn.ModuleDict, context: Tensor) -> Tensor:
    """From (b, c) to (b, c, 1, 1)."""
    hidden = layers["fc1"](context[:, :, None, None]).flatten(1)
    return layers["fc2"](F.relu(layers["norm"](hidden))[:, :, None, None])
