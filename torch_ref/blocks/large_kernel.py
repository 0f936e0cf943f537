"""Large kernel attention (Guo et al. 2023), following the authors' code."""

from torch import Tensor, nn

from ..maps import record


class LargeKernelAttention(nn.Module):
    """Multiplies a map (b, c, h, w) by a gate from a large kernel, in three convolutions."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv0 = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv_spatial = nn.Conv2d(dim, dim, 7, padding=9, dilation=3, groups=dim)
        self.conv1 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv1(self.conv_spatial(self.conv0(x)))
        record(self, "gate", gate)
        return x * gate


class VANAttention(nn.Module):
    """Large kernel attention between two layers, with a skip connection around it."""

    def __init__(self, d_model: int):
        super().__init__()
        self.proj_1 = nn.Conv2d(d_model, d_model, 1)
        self.activation = nn.GELU()
        self.spatial_gating_unit = LargeKernelAttention(d_model)
        self.proj_2 = nn.Conv2d(d_model, d_model, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x))))
