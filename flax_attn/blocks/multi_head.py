"""Multi-head attention with residual connection and layer norm.

Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.2:
``out = LayerNorm(dropout(concat(head_1 .. head_h) . W_O) + query)``, ``head_i = Attention(Q W_Q, K W_K, V W_V)``.

Differs from ``nnx.MultiHeadAttention`` and ``torch.nn.MultiheadAttention``: no biases, d_k and d_v are independent of
d_model, the block includes an optional residual and norm (eps 1e-6), and dropout acts on the output, not the weights.
"""

from functools import partial
from typing import Unpack

import jax
from flax import nnx

from .._check import check_positive, check_rate, check_shape
from ..layers import Dropout, LayerNorm, Linear
from ..ops.attention import check_mask
from ..options import Options, check_options
from .dot_product import ScaledDotProductAttention


class MultiHeadAttention(nnx.Module):
    """Multi-head dot-product attention with an optional residual connection and layer norm.

    As in all blocks, True in a mask keeps a key; in ``torch.nn.MultiheadAttention``, and in
    `flax_attn.layers.MultiheadAttention`, which mirrors it, True hides one.

    Args:
        n_head: Number of heads.
        d_model: Number of features of query, key, value and output.
        d_k: Number of query and key features per head; the temperature is sqrt(d_k).
        d_v: Number of value features per head.
        dropout: Dropout rate of the output projection.
        residual: Whether to add the query to the output.
        norm: Whether to apply layer norm at the end.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, or the rate is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> attention = MultiHeadAttention(8, 256, d_k=32, d_v=64, rngs=nnx.Rngs(0))
        >>> tokens = jnp.ones((2, 35, 256))
        >>> out, weights = attention(tokens, tokens, tokens, need_weights=True)
        >>> out.shape, weights.shape
        ((2, 35, 256), (2, 8, 35, 35))
    """

    def __init__(
        self,
        n_head: int,
        d_model: int,
        d_k: int,
        d_v: int,
        dropout: float = 0.1,
        residual: bool = True,
        norm: bool = True,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(n_head=n_head, d_model=d_model, d_k=d_k, d_v=d_v)
        check_rate("dropout", dropout)
        linear = partial(Linear, bias=False, rngs=rngs, **options)
        self.n_head, self.d_model, self.d_k, self.d_v = n_head, d_model, d_k, d_v
        self.residual = residual
        self.w_qs = linear(d_model, n_head * d_k)
        self.w_ks = linear(d_model, n_head * d_k)
        self.w_vs = linear(d_model, n_head * d_v)
        self.fc = linear(n_head * d_v, d_model)
        self.attention = ScaledDotProductAttention(d_k**0.5, rngs=rngs, **options)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.layer_norm = nnx.data(LayerNorm(d_model, eps=1e-6, rngs=rngs, **options) if norm else None)

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
        *,
        need_weights: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Computes attention.

        Args:
            query: (b, n_query, d_model).
            key: (b, n_key, d_model).
            value: (b, n_key, d_model).
            mask: (b, n_query, n_key), shared by all heads; axes of size 1 broadcast; booleans or integers,
                True or 1 keeps a key and False or 0 hides it from a query.
            bias: Floats of the mask's shape, added to the scores; minus infinity hides a key.
            need_weights: Whether to return the attention weights.

        Returns:
            The output (b, n_query, d_model), and the weights (b, n_head, n_query, n_key) or None.
        """
        b, n_query, n_key = self._check(query, key, value)
        check_mask(mask, bias, (b, n_query, n_key), "b, n_query, n_key")
        out, weights = self.attention(
            self.w_qs(query).reshape(b, n_query, self.n_head, self.d_k),
            self.w_ks(key).reshape(b, n_key, self.n_head, self.d_k),
            self.w_vs(value).reshape(b, n_key, self.n_head, self.d_v),
            None if mask is None else mask[:, None],
            None if bias is None else bias[:, None],
            need_weights=need_weights,
        )
        out = self.dropout(self.fc(out.reshape(b, n_query, self.n_head * self.d_v)))
        if self.residual:
            out = out + query.astype(out.dtype)
        if self.layer_norm is not None:
            out = self.layer_norm(out)
        return out, weights

    def _check(self, query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[int, int, int]:
        check_shape("query", query, "b n_query d_model", d_model=self.d_model)
        b, n_query, _ = query.shape
        check_shape("key", key, "b n_key d_model", b=b, d_model=self.d_model)
        n_key = key.shape[1]
        check_shape("value", value, "b n_key d_model", b=b, n_key=n_key, d_model=self.d_model)
        return b, n_query, n_key
