"""External attention (Guo et al. 2022)."""

import torch
from torch import Tensor, nn

from ..maps import record


def _normalised(module: nn.Module, scores: Tensor, eps: float) -> Tensor:
    """Scores (b, heads, n, memories): softmax over the tokens, then divided by the sum over the memories."""
    logs = torch.log_softmax(scores, dim=2)
    spread = logs.exp()
    record(module, "weights", spread.transpose(2, 3))
    # Without eps the softmax of the logarithms is the same quotient, and never 0 / 0.
    return spread / (eps + spread.sum(3, keepdim=True)) if eps else torch.softmax(logs, dim=3)


class ExternalAttention(nn.Module):
    """tokens (b, n, d_model) -> (b, n, d_model)."""

    def __init__(self, d_model: int, memories: int = 64, eps: float = 0.0):
        super().__init__()
        self.eps = eps
        self.mk = nn.Linear(d_model, memories, bias=False)
        self.mv = nn.Linear(memories, d_model, bias=False)
        for layer in (self.mk, self.mv):
            nn.init.normal_(layer.weight, std=0.001)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mv(_normalised(self, self.mk(tokens).unsqueeze(1), self.eps).squeeze(1))


class MultiHeadExternalAttention(nn.Module):
    """tokens (b, n, dim) -> (b, n, dim)."""

    def __init__(self, dim: int, num_heads: int = 8, attn_drop: float = 0.0, proj_drop: float = 0.0):
        super().__init__()
        self.heads = 4 * num_heads
        head_dim = dim // num_heads
        self.trans_dims = nn.Linear(dim, 4 * dim)
        self.linear_0 = nn.Linear(head_dim, 64)
        self.linear_1 = nn.Linear(64, head_dim)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(4 * dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.trans_dims(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
        weights = self.attn_drop(_normalised(self, self.linear_0(x), 1e-9))
        return self.proj_drop(self.proj(self.linear_1(weights).transpose(1, 2).flatten(2)))
