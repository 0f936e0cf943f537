"""Separable self-attention: one score per token instead of one per pair, at a cost linear in their number.

Mehta & Rastegari, "Separable self-attention for mobile vision transformers" (MobileViTv2), TMLR 2023: score, key and
value of a token are linear in it, ``context = sum_n softmax_n(score) * key``, and
``out = W_o . (relu(value) * context)``. The softmax goes over the n patches, for each of the p pixels inside a patch.

Differs from timm's ``LinearSelfAttention``: self-attention alone, as its cross-attention raises an error. fightingcv's
``MobileViTv2Attention`` is ``relu=False`` on maps of one pixel per patch.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_rate, check_shape
from ..layers import Conv, Dropout
from ..options import Options, check_options


class SeparableSelfAttention(nnx.Module):
    """Multiplies the values of all tokens by one context vector, their weighted mean key (MobileViTv2).

    Records the weights of the patches as ``spatial_gate`` (b, p, n, 1).

    Args:
        embed_dim: Number of features.
        attn_drop: Dropout rate of the weights.
        proj_drop: Dropout rate of the output.
        bias: Whether the projections have biases.
        relu: Whether values go through a ReLU, as in the paper.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``embed_dim`` is below 1, or a rate is outside [0, 1].

    Example:
        Patches of 2 by 2 pixels, 35 of them:

        >>> import jax.numpy as jnp
        >>> SeparableSelfAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 4, 35, 32))).shape
        (2, 4, 35, 32)
    """

    def __init__(
        self,
        embed_dim: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        bias: bool = True,
        relu: bool = True,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(embed_dim=embed_dim)
        check_rate("attn_drop", attn_drop)
        check_rate("proj_drop", proj_drop)
        self.embed_dim, self.relu = embed_dim, relu
        self.qkv_proj = Conv(embed_dim, 1 + 2 * embed_dim, 1, bias=bias, rngs=rngs, **options)
        self.attn_drop = Dropout(attn_drop, rngs=rngs)
        self.out_proj = Conv(embed_dim, embed_dim, 1, bias=bias, rngs=rngs, **options)
        self.out_drop = Dropout(proj_drop, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, p, n, embed_dim) to the same shape."""
        check_shape("x", x, "b p n embed_dim", embed_dim=self.embed_dim)
        score, key, value = jnp.split(self.qkv_proj(x), [1, 1 + self.embed_dim], axis=-1)
        wide = ops.score_dtype(score.dtype)
        weights = self.attn_drop(jax.nn.softmax(score.astype(wide), axis=2))
        ops.record(self, "spatial_gate", weights.astype(score.dtype))
        context = jnp.sum(key.astype(wide) * weights, axis=2, keepdims=True).astype(value.dtype)
        value = ops.relu(value) if self.relu else value
        return self.out_drop(self.out_proj(ops.multiply(value, context)))
