"""Lambda layers (Bello 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LambdaLayer(nn.Module):
    """Map (b, dim, h, w) -> (b, dim_out, h, w), halved with a stride of 2."""

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        feat_size: tuple[int, int] | None = None,
        stride: int = 1,
        num_heads: int = 4,
        dim_head: int = 16,
        r: int | None = 9,
        qkv_bias: bool = False,
        dim_u: int = 1,
    ):
        super().__init__()
        dim_out = dim_out or dim
        self.num_heads, self.k, self.v, self.u = num_heads, dim_head, dim_out // num_heads, dim_u
        self.stride = stride
        self.qkv = nn.Conv2d(dim, num_heads * self.k + dim_u * (self.k + self.v), 1, bias=qkv_bias)
        nn.init.trunc_normal_(self.qkv.weight, std=dim**-0.5)
        self.norm_q = nn.BatchNorm2d(num_heads * self.k)
        self.norm_v = nn.BatchNorm2d(dim_u * self.v)
        if r is not None:
            self.conv_lambda = nn.Conv3d(dim_u, self.k, (r, r, 1), padding=(r // 2, r // 2, 0))
            nn.init.trunc_normal_(self.conv_lambda.weight, std=self.k**-0.5)
            self.pos_emb = None
        else:
            assert feat_size is not None
            h, w = feat_size
            last = (self.k, dim_u) if dim_u > 1 else (self.k,)
            self.pos_emb = nn.Parameter(0.02 * torch.randn(2 * h - 1, 2 * w - 1, *last))

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        q, k, v = self.qkv(x).split((self.num_heads * self.k, self.u * self.k, self.u * self.v), 1)
        q = self.norm_q(q).view(b, self.num_heads, self.k, h * w)
        k = torch.softmax(k.reshape(b, self.u, self.k, h * w), dim=-1)
        v = self.norm_v(v).view(b, self.u, self.v, h * w)
        content = torch.einsum("bukm,buvm->bkv", k, v)
        if self.pos_emb is None:
            position = self.conv_lambda(v.movedim(2, -1).view(b, self.u, h, w, self.v))
            position = position.flatten(2, 3).movedim(1, 2)
        else:
            down, right = (torch.arange(n) - torch.arange(n)[:, None] + n - 1 for n in (h, w))  # key - query
            table = self.pos_emb.view(2 * h - 1, 2 * w - 1, self.k, self.u)
            pairs = table[down[:, None, :, None], right[None, :, None]].reshape(h * w, h * w, self.k, self.u)
            position = torch.einsum("nmku,buvm->bnkv", pairs, v)
        out = torch.einsum("bhkn,bkv->bhvn", q, content) + torch.einsum("bhkn,bnkv->bhvn", q, position)
        out = out.reshape(b, -1, h, w)
        return F.avg_pool2d(out, 2) if self.stride == 2 else out
