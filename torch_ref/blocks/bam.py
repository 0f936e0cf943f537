"""BAM (Park et al. 2018), following the authors' code."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ..maps import record


class BAM(nn.Module):
    """Scales a map (b, c, h, w) by 1 + sigmoid of a channel branch times (or plus) a spatial branch."""

    def __init__(
        self,
        gate_channel: int,
        reduction_ratio: int = 16,
        num_layers: int = 1,
        dilation_conv_num: int = 2,
        dilation_val: int = 4,
        combine: str = "product",
    ):
        super().__init__()
        hidden = gate_channel // reduction_ratio
        self.combine = combine

        channel: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for i in range(num_layers):
            channel[f"gate_c_fc_{i}"] = nn.Linear(hidden if i else gate_channel, hidden)
            channel[f"gate_c_bn_{i + 1}"] = nn.BatchNorm1d(hidden)
            channel[f"gate_c_relu_{i + 1}"] = nn.ReLU()
        channel["gate_c_fc_final"] = nn.Linear(hidden, gate_channel)
        self.channel_att = nn.Sequential(OrderedDict(gate_c=nn.Sequential(channel)))

        spatial: OrderedDict[str, nn.Module] = OrderedDict()
        spatial["gate_s_conv_reduce0"] = nn.Conv2d(gate_channel, hidden, 1)
        spatial["gate_s_bn_reduce0"] = nn.BatchNorm2d(hidden)
        spatial["gate_s_relu_reduce0"] = nn.ReLU()
        for i in range(dilation_conv_num):
            spatial[f"gate_s_conv_di_{i}"] = nn.Conv2d(hidden, hidden, 3, padding=dilation_val, dilation=dilation_val)
            spatial[f"gate_s_bn_di_{i}"] = nn.BatchNorm2d(hidden)
            spatial[f"gate_s_relu_di_{i}"] = nn.ReLU()
        spatial["gate_s_conv_final"] = nn.Conv2d(hidden, 1, 1)
        self.spatial_att = nn.Sequential(OrderedDict(gate_s=nn.Sequential(spatial)))

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel_att(x.mean((2, 3), keepdim=True))[:, :, None, None]
        spatial = self.spatial_att(x)
        gate = 1 + torch.sigmoid(channel * spatial if self.combine == "product" else channel + spatial)
        record(self, "gate", gate)
        return x * gate
