"""Self-attention of the vision transformer (Dosovitskiy et al. 2021)."""

import torch
from torch import Tensor, nn

from ..maps import record
from ..masks import apply_mask


class SelfAttention(nn.Module):
    """tokens (b, n, dim), mask and bias (b, heads, n, n) -> (b, n, dim_out)."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        attn_head_dim: int | None = None,
        dim_out: int | None = None,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        gated: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = attn_head_dim or dim // num_heads
        inner = num_heads * self.head_dim
        self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
        self.q_norm = nn.LayerNorm(self.head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = nn.LayerNorm(inner, eps=1e-6) if scale_norm else nn.Identity()
        self.gate = nn.Linear(dim, inner, bias=qkv_bias) if gated else None
        self.proj = nn.Linear(inner, dim_out or dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        scores = self.q_norm(q) @ self.k_norm(k).transpose(2, 3) / self.head_dim**0.5
        weights = self.attn_drop(torch.softmax(apply_mask(scores, mask, bias), dim=-1))
        record(self, "weights", weights)
        out = self.norm((weights @ v).transpose(1, 2).flatten(2))
        if self.gate is not None:
            out = out * torch.sigmoid(self.gate(tokens))
        return self.proj_drop(self.proj(out))
