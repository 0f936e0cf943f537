"""Differential attention (Ye et al. 2025)."""

import math

import torch
from torch import Tensor, nn

from ..maps import record
from ..masks import apply_mask


class DifferentialAttention(nn.Module):
    """tokens (b, n, dim), mask and bias (b, heads, n, n) -> (b, n, dim)."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        depth: int = 0,
        dual_lambda: bool = False,
    ):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads // 2
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * depth)
        self.dual_lambda = dual_lambda
        if dual_lambda:
            self.lambda_a, self.lambda_b = (nn.Parameter(torch.zeros(())) for _ in range(2))
        else:
            for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
                setattr(self, name, nn.Parameter(0.1 * torch.randn(self.head_dim)))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.sub_norm = nn.RMSNorm(2 * self.head_dim, eps=1e-5)
        self.norm = nn.RMSNorm(dim, eps=1e-6) if scale_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(tokens).chunk(3, dim=2)
        pairs = (self.num_heads, 2, self.head_dim)
        q, k = self.q_norm(q.unflatten(2, pairs)), self.k_norm(k.unflatten(2, pairs))
        v = v.unflatten(2, (self.num_heads, -1))
        scores = torch.einsum("bqhpd,bkhpd->bphqk", q, k) / self.head_dim**0.5
        first, second = (apply_mask(scores[:, pair], mask, bias).softmax(-1) for pair in (0, 1))
        weights = self.attn_drop(first) - self._lambda() * self.attn_drop(second)
        record(self, "weights", weights)
        heads = self.sub_norm(torch.einsum("bhqk,bkhd->bqhd", weights, v)) * (1 - self.lambda_init)
        return self.proj_drop(self.proj(self.norm(heads.flatten(2))))

    def _lambda(self) -> Tensor:
        if self.dual_lambda:
            return self.lambda_a.exp() - self.lambda_b.exp() + self.lambda_init
        first, second = self.lambda_q1 @ self.lambda_k1, self.lambda_q2 @ self.lambda_k2
        return first.exp() - second.exp() + self.lambda_init
