"""``torch.nn.MultiheadAttention``: PyTorch's arguments, masks, initial values and returned weights."""

import math
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_rate, check_shape
from ..options import Options, check_options
from .dropout import Dropout
from .linear import Linear


class MultiheadAttention(nnx.Module):
    """Multi-head attention (Vaswani et al. 2017) as PyTorch's layer computes it.

    In a boolean mask **True hides** a key, as in PyTorch; in the blocks of `flax_attn`, such as
    `flax_attn.MultiHeadAttention`, True keeps it. A mask of floats is added to the scores. A query whose keys are all
    hidden by booleans or minus infinities gives NaN.

    The three projections have weights of their own here; `flax_attn.convert` packs them into ``in_proj_weight``, as
    PyTorch does where their sizes are equal.

    Args:
        embed_dim: Number of features of query and output.
        num_heads: Number of heads; must divide ``embed_dim``.
        dropout: Dropout rate of the attention weights.
        bias: Whether the projections have biases.
        add_bias_kv, add_zero_attn: Only False.
        kdim: Number of features of the key, ``embed_dim`` by default.
        vdim: Number of features of the value, ``embed_dim`` by default.
        batch_first: Whether arrays are (b, n, features) instead of (n, b, features).
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, the heads do not divide the features, the rate is outside [0, 1], or an
            argument is not supported.

    Example:
        >>> attention = MultiheadAttention(12, 3, batch_first=True, rngs=nnx.Rngs(0))
        >>> tokens = jnp.ones((2, 5, 12))
        >>> causal = jnp.triu(jnp.ones((5, 5), bool), 1)  # True hides
        >>> out, weights = attention(tokens, tokens, tokens, attn_mask=causal)
        >>> out.shape, weights.shape
        ((2, 5, 12), (2, 5, 5))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        self.kdim, self.vdim = (embed_dim if size is None else size for size in (kdim, vdim))
        check_positive(embed_dim=embed_dim, num_heads=num_heads, kdim=self.kdim, vdim=self.vdim)
        check_rate("dropout", dropout)
        if embed_dim % num_heads:
            raise ValueError(f"num_heads must divide embed_dim={embed_dim}, got {num_heads}")
        for name, value in (("add_bias_kv", add_bias_kv), ("add_zero_attn", add_zero_attn)):
            if value:
                raise ValueError(f"{name} must be False, as it is not supported, got {value!r}")
        self.embed_dim, self.num_heads, self.batch_first = embed_dim, num_heads, batch_first
        # Xavier's bound, for the three weights as one where PyTorch keeps them as one.
        packed = self.kdim == self.vdim == embed_dim
        project = partial(_projection, out=embed_dim, parts=3 if packed else 1, bias=bias, rngs=rngs, options=options)
        self.q_proj, self.k_proj, self.v_proj = project(embed_dim), project(self.kdim), project(self.vdim)
        self.out_proj = Linear(embed_dim, embed_dim, bias, rngs=rngs, **options)
        if self.out_proj.bias is not None:
            self.out_proj.bias[...] = jnp.zeros_like(self.out_proj.bias[...])
        self.dropout = Dropout(dropout, rngs=rngs)
        self.precision = options.get("precision")

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        key_padding_mask: jax.Array | None = None,
        need_weights: bool = True,
        attn_mask: jax.Array | None = None,
        average_attn_weights: bool = True,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Computes attention; shapes are those of ``batch_first=True``, otherwise the first two axes are exchanged.

        Args:
            query: (b, n_query, embed_dim).
            key: (b, n_key, kdim).
            value: (b, n_key, vdim).
            key_padding_mask: (b, n_key), booleans, True for a key to hide, or floats that are added to the scores.
            need_weights: Whether to return the attention weights.
            attn_mask: (n_query, n_key) or (b * num_heads, n_query, n_key), as ``key_padding_mask``.
            average_attn_weights: Whether the returned weights are the mean over the heads.

        Returns:
            The output (b, n_query, embed_dim), and the weights after dropout, (b, n_query, n_key) or (b, num_heads,
            n_query, n_key), or None.

        Raises:
            ValueError: If a shape does not fit, or a mask is of integers.
        """
        query, key, value = (x if self.batch_first or x.ndim != 3 else x.swapaxes(0, 1) for x in (query, key, value))
        check_shape("query", query, "b n_query embed_dim", embed_dim=self.embed_dim)
        b, n_query, _ = query.shape
        check_shape("key", key, "b n_key kdim", b=b, kdim=self.kdim)
        n_key, heads = key.shape[1], self.num_heads
        check_shape("value", value, "b n_key vdim", b=b, n_key=n_key, vdim=self.vdim)
        q, k, v = (
            layer(x).reshape(b, x.shape[1], heads, self.embed_dim // heads)
            for layer, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        out, weights = ops.dot_product_attention(
            q,
            k,
            v,
            temperature=math.sqrt(self.embed_dim // heads),
            bias=self._bias(key_padding_mask, attn_mask, b, n_query, n_key, ops.score_dtype(q.dtype)),
            weights_fn=self.dropout.draw(),
            need_weights=need_weights or ops.is_recording(self),
            precision=self.precision,
        )
        if weights is not None:
            ops.record(self, "weights", weights)
            weights = jnp.mean(weights, axis=1) if average_attn_weights else weights
        out = self.out_proj(out.reshape(b, n_query, self.embed_dim))
        return out if self.batch_first else out.swapaxes(0, 1), weights if need_weights else None

    def _bias(
        self,
        key_padding_mask: jax.Array | None,
        attn_mask: jax.Array | None,
        b: int,
        n_query: int,
        n_key: int,
        dtype: jnp.dtype,
    ) -> jax.Array | None:
        """What both masks add to the scores, (b or 1, heads or 1, n_query or 1, n_key)."""
        total = None
        if attn_mask is not None:
            if attn_mask.ndim == 3:
                check_shape(
                    "attn_mask",
                    attn_mask,
                    "b*heads n_query n_key",
                    **{"b*heads": b * self.num_heads},
                    n_query=n_query,
                    n_key=n_key,
                )
                total = _added("attn_mask", attn_mask, dtype).reshape(b, self.num_heads, n_query, n_key)
            else:
                check_shape("attn_mask", attn_mask, "n_query n_key", n_query=n_query, n_key=n_key)
                total = _added("attn_mask", attn_mask, dtype)[None, None]
        if key_padding_mask is not None:
            check_shape("key_padding_mask", key_padding_mask, "b n_key", b=b, n_key=n_key)
            padding = _added("key_padding_mask", key_padding_mask, dtype)[:, None, None]
            total = padding if total is None else total + padding
        return total


def _added(argument: str, mask: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The mask as numbers to add to the scores."""
    if mask.dtype == bool:
        return jnp.where(mask, -jnp.inf, jnp.zeros((), dtype))
    if not jnp.issubdtype(mask.dtype, jnp.floating):
        raise ValueError(f"{argument} must be of booleans, True hides a key, or of floats to add, got {mask.dtype}")
    return mask.astype(dtype)


def _projection(features: int, out: int, parts: int, bias: bool, rngs: nnx.Rngs, options: Options) -> Linear:
    layer = Linear(features, out, bias, rngs=rngs, **options)
    bound = math.sqrt(6 / (features + parts * out))
    layer.kernel[...] = jax.random.uniform(rngs.params(), (features, out), layer.kernel.dtype, -bound, bound)
    if layer.bias is not None:
        layer.bias[...] = jnp.zeros_like(layer.bias[...])
    return layer
