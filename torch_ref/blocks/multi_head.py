"""Multi-head attention with residual connection and layer norm (Vaswani et al. 2017), as in the tutorial."""

from torch import Tensor, nn

from .dot_product import ScaledDotProductAttention


class MultiHeadAttention(nn.Module):
    """query (b, n_query, d_model), key and value (b, n_key, d_model) -> (b, n_query, d_model)."""

    def __init__(
        self,
        n_head: int,
        d_model: int,
        d_k: int,
        d_v: int,
        dropout: float = 0.1,
        residual: bool = True,
        norm: bool = True,
    ):
        super().__init__()
        self.n_head, self.d_k, self.d_v = n_head, d_k, d_v
        self.residual = residual
        self.w_qs = nn.Linear(d_model, n_head * d_k, bias=False)
        self.w_ks = nn.Linear(d_model, n_head * d_k, bias=False)
        self.w_vs = nn.Linear(d_model, n_head * d_v, bias=False)
        self.fc = nn.Linear(n_head * d_v, d_model, bias=False)
        self.attention = ScaledDotProductAttention(temperature=d_k**0.5)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(d_model, eps=1e-6) if norm else None

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
        b, n_query, n_key = query.size(0), query.size(1), key.size(1)
        q = self.w_qs(query).view(b, n_query, self.n_head, self.d_k).transpose(1, 2)
        k = self.w_ks(key).view(b, n_key, self.n_head, self.d_k).transpose(1, 2)
        v = self.w_vs(value).view(b, n_key, self.n_head, self.d_v).transpose(1, 2)
        mask, bias = (None if array is None else array.unsqueeze(1) for array in (mask, bias))  # shared by all heads
        heads, weights = self.attention(q, k, v, mask, bias, need_weights=need_weights)
        out = self.dropout(self.fc(heads.transpose(1, 2).reshape(b, n_query, -1)))
        if self.residual:
            out = out + query
        if self.layer_norm is not None:
            out = self.layer_norm(out)
        return out, weights
