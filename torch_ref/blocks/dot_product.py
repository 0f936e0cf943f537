"""Scaled dot-product attention (Vaswani et al. 2017), as in the tutorial."""

import torch
from torch import Tensor, nn

from ..maps import record
from ..masks import apply_mask


class ScaledDotProductAttention(nn.Module):
    """query (b, heads, n_query, d_k), key and value (b, heads, n_key, d) -> (b, heads, n_query, d_v)."""

    def __init__(self, temperature: float, attn_dropout: float = 0.0):
        super().__init__()
        self.temperature = temperature
        self.dropout = nn.Dropout(attn_dropout)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        scores = torch.matmul(query / self.temperature, key.transpose(2, 3))
        weights = self.dropout(torch.softmax(apply_mask(scores, mask, bias), dim=-1))
        record(self, "weights", weights)
        return torch.matmul(weights, value), weights if need_weights else None
