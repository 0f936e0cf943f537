"""Multi-query attention on maps (Shazeer 2019; MobileNetV4, Qin et al. 2024)."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ..maps import record


class MultiQueryAttention2d(nn.Module):
    """x (b, dim, h, w) -> (b, dim_out, h, w)."""

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        num_heads: int = 8,
        key_dim: int | None = None,
        value_dim: int | None = None,
        query_strides: int | tuple[int, int] = 1,
        kv_stride: int = 1,
        dw_kernel_size: int = 3,
        dilation: int = 1,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        use_bias: bool = False,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.key_dim, value_dim = key_dim or dim // num_heads, value_dim or dim // num_heads
        strides = (query_strides, query_strides) if isinstance(query_strides, int) else query_strides
        pooled = strides != (1, 1)

        def projection(width: int, down: OrderedDict[str, nn.Module]) -> nn.Sequential:
            norm = {"norm": nn.BatchNorm2d(dim)} if down else {}
            return nn.Sequential(OrderedDict(**down, **norm, proj=nn.Conv2d(dim, width, 1, bias=use_bias)))

        def strided() -> OrderedDict[str, nn.Module]:
            if kv_stride == 1:
                return OrderedDict()
            padding = (kv_stride - 1 + dilation * (dw_kernel_size - 1)) // 2
            conv = nn.Conv2d(dim, dim, dw_kernel_size, kv_stride, padding, dilation, groups=dim, bias=False)
            return OrderedDict(down_conv=conv)

        self.query = projection(
            num_heads * self.key_dim, OrderedDict(down_pool=nn.AvgPool2d(strides)) if pooled else OrderedDict()
        )
        self.key = projection(self.key_dim, strided())
        self.value = projection(value_dim, strided())
        self.attn_drop = nn.Dropout(attn_drop)
        self.output = nn.Sequential(
            OrderedDict(
                upsample=nn.Upsample(scale_factor=strides, mode="bilinear") if pooled else nn.Identity(),
                proj=nn.Conv2d(num_heads * value_dim, dim_out or dim, 1, bias=use_bias),
                drop=nn.Dropout(proj_drop),
            )
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query(x), self.key(x).flatten(2), self.value(x).flatten(2)
        q = query.unflatten(1, (self.num_heads, -1)).flatten(3).transpose(2, 3).flatten(1, 2)
        weights = self.attn_drop(torch.softmax(q @ key / self.key_dim**0.5, dim=-1).unsqueeze(1)).squeeze(1)
        record(self, "weights", weights.unflatten(1, (self.num_heads, -1)))
        heads = (weights @ value.transpose(1, 2)).unflatten(1, (self.num_heads, -1)).transpose(2, 3).flatten(1, 2)
        out: Tensor = self.output(heads.unflatten(2, query.shape[2:]))
        return out
