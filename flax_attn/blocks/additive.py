"""Additive attention.

Bahdanau, Cho & Bengio, "Neural machine translation by jointly learning to align and translate", ICLR 2015, appendix
A.1.2: ``score = v . tanh(W_q query + W_k key)``, softmax over the keys, weighted sum of the values. As in the paper's
equation, there are no biases.

Differs from the paper: keys and values are separate arguments; there both are the encoder's annotations.
"""

from functools import partial
from typing import Unpack

import jax
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

from .. import ops
from .._check import check_positive, check_shape
from ..layers import Linear
from ..ops.attention import check_mask
from ..options import Options, check_options


class AdditiveAttention(nnx.Module):
    """Attention scored by an MLP with one hidden layer; queries and keys may differ in feature size.

    Memory grows with n_query * n_key * hidden, so keep sequences short.

    Args:
        query_in: Number of query features.
        key_in: Number of key features.
        hidden: Number of hidden units in the score MLP.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> attention = AdditiveAttention(3, 5, 8, rngs=nnx.Rngs(0))
        >>> query, key, value = jnp.ones((2, 7, 3)), jnp.ones((2, 11, 5)), jnp.ones((2, 11, 13))
        >>> out, weights = attention(query, key, value, need_weights=True)
        >>> out.shape, weights.shape
        ((2, 7, 13), (2, 1, 7, 11))
    """

    def __init__(self, query_in: int, key_in: int, hidden: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(query_in=query_in, key_in=key_in, hidden=hidden)
        linear = partial(Linear, bias=False, rngs=rngs, **options)
        self.query_in, self.key_in = query_in, key_in
        self.w_q = linear(query_in, hidden)
        self.w_k = linear(key_in, hidden)
        self.v = linear(hidden, 1)
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
            query: (b, n_query, query_in).
            key: (b, n_key, key_in).
            value: (b, n_key, d_v).
            mask: (b, n_query, n_key), where axes of size 1 broadcast; booleans or integers,
                True or 1 keeps a key and False or 0 hides it from a query.
            bias: Floats of the mask's shape, added to the scores; minus infinity hides a key.
            need_weights: Whether to return the attention weights.

        Returns:
            The output (b, n_query, d_v), and the weights (b, 1, n_query, n_key) or None.
        """
        check_shape("query", query, "b n_query query_in", query_in=self.query_in)
        b, n_query, _ = query.shape
        check_shape("key", key, "b n_key key_in", b=b, key_in=self.key_in)
        n_key = key.shape[1]
        check_shape("value", value, "b n_key d_v", b=b, n_key=n_key)
        check_mask(mask, bias, (b, n_query, n_key), "b, n_query, n_key")
        (value,) = promote_dtype((value,), dtype=self.dtype)
        out, weights = ops.additive_attention(
            self.w_q(query), self.w_k(key), value, self.v, mask=mask, bias=bias, precision=self.precision
        )
        weights = weights[:, None]
        ops.record(self, "weights", weights)
        return out, weights if need_weights else None
