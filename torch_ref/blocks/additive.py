"""Additive attention (Bahdanau, Cho & Bengio 2015)."""

import torch
from torch import Tensor, nn

from ..maps import record
from ..masks import apply_mask


class AdditiveAttention(nn.Module):
    """query (b, n_query, query_in), key (b, n_key, key_in), value (b, n_key, d_v) -> (b, n_query, d_v)."""

    def __init__(self, query_in: int, key_in: int, hidden: int):
        super().__init__()
        self.w_q = nn.Linear(query_in, hidden, bias=False)
        self.w_k = nn.Linear(key_in, hidden, bias=False)
        self.v = nn.Linear(hidden, 1, bias=False)

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
        hidden = torch.tanh(self.w_q(query).unsqueeze(2) + self.w_k(key).unsqueeze(1))
        scores = self.v(hidden).squeeze(-1)
        weights = torch.softmax(apply_mask(scores, mask, bias), dim=-1)
        record(self, "weights", weights.unsqueeze(1))
        return torch.matmul(weights, value), weights.unsqueeze(1) if need_weights else None
