"""Attention of all places of a map to a smaller copy of it.

Wang, Xie, Li, Fan, Song, Liang, Lu, Luo & Shao, "Pyramid vision transformer: a versatile backbone for dense prediction
without convolutions", ICCV 2021: ``softmax(q k^T / sqrt(d)) v``, where keys and values come from
``LayerNorm(conv_r(x))``, with a convolution of kernel size and stride r (equations 2 to 4). Wang et al., "PVT v2:
improved baselines with pyramid vision transformer", Computational Visual Media 2022, section 3.1, linear: from
``GELU(LayerNorm(conv_1(pool_7(x))))``, whatever the size.

Differs from the authors' code: the block takes a map, not tokens and the map's size.
"""

from typing import Unpack

import jax
from flax import nnx

from .. import ops
from .._check import check_heads, check_positive, check_rate, check_shape, is_below
from ..layers import GELU, AdaptiveAvgPool, Conv, Dropout, LayerNorm, Linear
from ..options import Options, check_options

POOLED = 7  # rows and columns of the map that the linear form attends to


class SpatialReductionAttention(nnx.Module):
    """Multi-head attention from a map to a copy of it that a strided convolution, or pooling, makes smaller (PVT).

    Args:
        dim: Number of channels.
        num_heads: Number of heads, which must divide ``dim``.
        sr_ratio: By how much the convolution reduces height and width; rows and columns beyond a multiple of it are
            not seen. 1 for no reduction, convolution or norm.
        linear_attn: Whether to average-pool the map to 7x7 instead, as in PVT v2; ``sr_ratio`` is then not used.
        qkv_bias: Whether queries, keys and values have a bias.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, ``num_heads`` does not divide ``dim``, a rate is outside [0, 1], or the map is
            smaller than ``sr_ratio``.

    Example:
        >>> import jax.numpy as jnp
        >>> attention = SpatialReductionAttention(32, 4, sr_ratio=4, rngs=nnx.Rngs(0))
        >>> attention(jnp.ones((2, 12, 20, 32))).shape
        (2, 12, 20, 32)
        >>> {path: weights.shape for path, weights in ops.attention_maps(attention, jnp.ones((2, 12, 20, 32))).items()}
        {'weights': (2, 4, 240, 15)}
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        sr_ratio: int = 1,
        linear_attn: bool = False,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_heads(num_heads, dim=dim)
        check_positive(sr_ratio=sr_ratio)
        check_rate("attn_drop", attn_drop)
        check_rate("proj_drop", proj_drop)
        self.dim, self.num_heads, self.sr_ratio = dim, num_heads, 1 if linear_attn else sr_ratio
        self.q = Linear(dim, dim, bias=qkv_bias, rngs=rngs, **options)
        self.kv = Linear(dim, 2 * dim, bias=qkv_bias, rngs=rngs, **options)
        self.attn_drop = Dropout(attn_drop, rngs=rngs)
        self.proj = Linear(dim, dim, rngs=rngs, **options)
        self.proj_drop = Dropout(proj_drop, rngs=rngs)
        reduces = linear_attn or sr_ratio > 1
        self.sr = nnx.data(Conv(dim, dim, self.sr_ratio, self.sr_ratio, rngs=rngs, **options) if reduces else None)
        self.norm = nnx.data(LayerNorm(dim, rngs=rngs, **options) if reduces else None)
        self.pool = nnx.data(AdaptiveAvgPool(POOLED) if linear_attn else None)
        self.act = nnx.data(GELU() if linear_attn else None)
        self.precision = options.get("precision")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes attention in a map (b, h, w, dim)."""
        check_shape("x", x, "b h w dim", dim=self.dim)
        if any(is_below(length, self.sr_ratio) for length in x.shape[1:3]):
            raise ValueError(f"x must have h and w >= {self.sr_ratio}, sr_ratio, got {x.shape}")
        b, h, w, _ = x.shape
        heads, d = self.num_heads, self.dim // self.num_heads
        query = self.q(ops.map_to_tokens(x)).reshape(b, h * w, heads, d)
        for layer in (self.pool, self.sr):
            x = x if layer is None else layer(x)
        tokens = ops.map_to_tokens(x)
        for function in (self.norm, self.act):
            tokens = tokens if function is None else function(tokens)
        keys = self.kv(tokens)
        keys = keys.reshape(b, keys.shape[1], 2, heads, d)
        out, weights = ops.dot_product_attention(
            query,
            keys[:, :, 0],
            keys[:, :, 1],
            temperature=d**0.5,
            weights_fn=self.attn_drop if self.attn_drop.is_active else None,
            need_weights=ops.is_recording(self),
            precision=self.precision,
        )
        if weights is not None:
            ops.record(self, "weights", weights)
        out = self.proj_drop(self.proj(out.reshape(b, h * w, self.dim)))
        return out.reshape(b, h, w, self.dim)
