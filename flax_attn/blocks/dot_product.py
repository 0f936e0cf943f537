"""Scaled dot-product attention.

Vaswani et al., "Attention is all you need", NeurIPS 2017, equation 1:
``Attention(Q, K, V) = softmax(Q . K^T / temperature) . V``.

Differs from the common form: the temperature is an argument (sqrt(d_k) in the paper), masked scores are -1e9 instead of
minus infinity, which makes a fully masked row uniform, and dropout acts on the weights.
"""

from typing import Unpack

import jax
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

from .. import ops
from .._check import check_rate, check_shape, check_temperature
from ..layers import Dropout
from ..ops.attention import check_mask
from ..options import Options, check_options


class ScaledDotProductAttention(nnx.Module):
    """Parameter-free scaled dot-product attention over any number of heads.

    Args:
        temperature: Divisor of the queries, not 0.
        attn_dropout: Dropout rate of the attention weights.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the temperature is 0 or not finite, or the rate is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> attention = ScaledDotProductAttention(temperature=16.0, rngs=nnx.Rngs(0))
        >>> query, key = jnp.ones((2, 32, 1, 256)), jnp.ones((2, 16, 1, 256))
        >>> out, weights = attention(query, key, key, need_weights=True)
        >>> out.shape, weights.shape
        ((2, 32, 1, 256), (2, 1, 32, 16))
    """

    def __init__(
        self,
        temperature: float,
        attn_dropout: float = 0.0,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_temperature(temperature)
        check_rate("attn_dropout", attn_dropout)
        self.temperature = temperature
        self.dropout = Dropout(attn_dropout, rngs=rngs)
        self.dtype = options.get("dtype")
        self.precision = options.get("precision")

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
            query: (b, n_query, heads, d_k).
            key: (b, n_key, heads, d_k).
            value: (b, n_key, heads, d_v).
            mask: (b, heads, n_query, n_key), where axes of size 1 broadcast; booleans or integers,
                True or 1 keeps a key and False or 0 hides it from a query.
            bias: Floats of the mask's shape, added to the scores; minus infinity hides a key.
            need_weights: Whether to return the attention weights.

        Returns:
            The output (b, n_query, heads, d_v), and the weights after dropout (b, heads, n_query, n_key) or None.
        """
        check_shape("query", query, "b n_query heads d_k")
        b, n_query, heads, d_k = query.shape
        check_shape("key", key, "b n_key heads d_k", b=b, heads=heads, d_k=d_k)
        n_key = key.shape[1]
        check_shape("value", value, "b n_key heads d_v", b=b, n_key=n_key, heads=heads)
        check_mask(mask, bias, (b, heads, n_query, n_key), "b, heads, n_query, n_key")
        query, key, value = promote_dtype((query, key, value), dtype=self.dtype)
        out, weights = ops.dot_product_attention(
            query,
            key,
            value,
            temperature=self.temperature,
            mask=mask,
            bias=bias,
            weights_fn=self.dropout.draw(),
            need_weights=need_weights or ops.is_recording(self),
            precision=self.precision,
        )
        if weights is not None:
            ops.record(self, "weights", weights)
        return out, weights if need_weights else None
