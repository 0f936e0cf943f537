"""Self-attention as in the vision transformer (ViT).

Dosovitskiy et al., "An image is worth 16x16 words: transformers for image recognition at scale", ICLR 2021:
``out = concat(head_1 .. head_h) . W_proj``, ``head_i = softmax(q_i . k_i^T / sqrt(d)) . v_i`` with q, k and v from one
linear layer. ``qk_norm`` is from Dehghani et al., "Scaling vision transformers to 22 billion parameters", ICML 2023:
q and k go through a layer norm per head. ``scale_norm`` and ``gated`` are timm's.

Differs from timm's ``Attention``: the norms are layer norms with eps 1e-6, as in its models, masks and biases are two
arguments, and masked scores are -1e9 instead of minus infinity, which makes a fully masked row uniform. Its vision
transformers have ``qkv_bias=True``, which is not the default of the class; nor is it here.
"""

import math
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_rate, check_shape
from ..layers import Dropout, LayerNorm, Linear
from ..options import Options, check_options


class SelfAttention(nnx.Module):
    """Multi-head self-attention between tokens, with queries, keys and values from one projection (ViT).

    Args:
        dim: Number of features of the tokens.
        num_heads: Number of heads; must divide ``dim`` unless ``attn_head_dim`` is given.
        attn_head_dim: Number of features per head, dim / num_heads by default.
        dim_out: Number of features of the output, ``dim`` by default.
        qkv_bias: Whether the projection to queries, keys and values, and that to the gate, have biases.
        qk_norm: Whether to apply layer norm to queries and keys, per head.
        scale_norm: Whether to apply layer norm to the heads before the last projection.
        proj_bias: Whether the last projection has a bias.
        gated: Whether to multiply the heads by the sigmoid of a projection of the tokens.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, the heads do not divide the features, or a rate is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> attention = SelfAttention(192, num_heads=3, qkv_bias=True, rngs=nnx.Rngs(0))
        >>> attention(jnp.ones((2, 35, 192))).shape
        (2, 35, 192)
    """

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
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(dim=dim, num_heads=num_heads)
        if attn_head_dim is None:
            if dim % num_heads:
                raise ValueError(f"num_heads must divide dim={dim}, got {num_heads}")
            attn_head_dim = dim // num_heads
        dim_out = dim if dim_out is None else dim_out
        check_positive(attn_head_dim=attn_head_dim, dim_out=dim_out)
        check_rate("attn_drop", attn_drop)
        check_rate("proj_drop", proj_drop)
        self.dim, self.num_heads, self.head_dim = dim, num_heads, attn_head_dim
        self.precision = options.get("precision")
        linear = partial(Linear, rngs=rngs, **options)
        norm = partial(LayerNorm, eps=1e-6, rngs=rngs, **options)
        inner = num_heads * attn_head_dim
        self.qkv = linear(dim, 3 * inner, bias=qkv_bias)
        self.q_norm = nnx.data(norm(attn_head_dim) if qk_norm else None)
        self.k_norm = nnx.data(norm(attn_head_dim) if qk_norm else None)
        self.attn_drop = Dropout(attn_drop, rngs=rngs)
        self.norm = nnx.data(norm(inner) if scale_norm else None)
        self.gate = nnx.data(linear(dim, inner, bias=qkv_bias) if gated else None)
        self.proj = linear(inner, dim_out, bias=proj_bias)
        self.proj_drop = Dropout(proj_drop, rngs=rngs)

    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None, bias: jax.Array | None = None) -> jax.Array:
        """Computes attention.

        Args:
            tokens: (b, n, dim).
            mask: (b, heads, n, n), where axes of size 1 broadcast; booleans or integers, True or 1 keeps a key and
                False or 0 hides it from a query.
            bias: Floats of the mask's shape, added to the scores; minus infinity hides a key.

        Returns:
            The output (b, n, dim_out).
        """
        check_shape("tokens", tokens, "b n dim", dim=self.dim)
        b, n, _ = tokens.shape
        query, key, value = jnp.moveaxis(self.qkv(tokens).reshape(b, n, 3, self.num_heads, self.head_dim), 2, 0)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        out, weights = ops.dot_product_attention(
            query,
            key,
            value,
            temperature=math.sqrt(self.head_dim),
            mask=mask,
            bias=bias,
            weights_fn=self.attn_drop.draw(),
            need_weights=ops.is_recording(self),
            precision=self.precision,
        )
        if weights is not None:
            ops.record(self, "weights", weights)
        out = out.reshape(b, n, self.num_heads * self.head_dim)
        if self.norm is not None:
            out = self.norm(out)
        if self.gate is not None:
            out = ops.multiply(out, ops.sigmoid(self.gate(tokens)))
        return self.proj_drop(self.proj(out))
