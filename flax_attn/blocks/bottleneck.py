"""Attention over a map with relative positions in two dimensions, in place of a convolution.

Srinivas, Lin, Parmar, Shlens, Abbeel & Vaswani, "Bottleneck transformers for visual recognition", CVPR 2021, figure 4:
``softmax(q k^T + q r^T) v`` over all places, where r is the sum of a vector for the distance between two places' rows
and one for that between their columns. A stride of 2 is an average pool behind it.

Differs from the paper, as timm does: q k^T alone is divided by sqrt(d); ``scale_pos_embed=True`` divides both.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_choice, check_heads, check_positive, check_shape, is_number
from ..layers import AvgPool, Conv
from ..layers.initializers import reset_truncated_normal, truncated_normal
from ..options import Options, check_options


def key_width(dim_out: int, num_heads: int, dim_head: int | None, qk_ratio: float) -> int:
    """``dim_head``, or a share of the output channels, as a multiple of 8, spread over the heads.

    Raises:
        ValueError: If ``num_heads`` does not divide ``dim_out``, or no feature is left for a head.
    """
    check_heads(num_heads, dim_out=dim_out)
    if dim_head is None:
        if not is_number(qk_ratio) or qk_ratio <= 0:
            raise ValueError(f"qk_ratio must be a number above 0, got {qk_ratio!r}")
        width = ops.make_divisible(dim_out * qk_ratio)
        if width < num_heads:
            raise ValueError(f"num_heads must be at most {width}, the features of all queries, got {num_heads}")
        return width // num_heads
    check_positive(dim_head=dim_head)
    return dim_head


class BottleneckAttention(nnx.Module):
    """Multi-head attention over a map of one size, with learned relative positions of rows and columns (BoTNet).

    Args:
        dim: Number of channels.
        dim_out: Number of output channels; None for ``dim``.
        feat_size: Height and width of the map, in pixels.
        stride: 1, or 2 to halve the output by average pooling.
        num_heads: Number of heads, which must divide ``dim_out``.
        dim_head: Number of query and key features per head; None takes them from ``qk_ratio``.
        qk_ratio: Query and key features of all heads relative to ``dim_out``, rounded to a multiple of 8.
        qkv_bias: Whether queries, keys and values have a bias.
        scale_pos_embed: Whether 1/sqrt(d) also scales what the positions add.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``feat_size`` is missing, a size is below 1, ``num_heads`` does not divide ``dim_out``, or
            ``stride`` is neither 1 nor 2.

    Example:
        >>> attention = BottleneckAttention(32, feat_size=(5, 7), rngs=nnx.Rngs(0))
        >>> attention(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        feat_size: tuple[int, int] | None = None,
        stride: int = 1,
        num_heads: int = 4,
        dim_head: int | None = None,
        qk_ratio: float = 1.0,
        qkv_bias: bool = False,
        scale_pos_embed: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        dim_out = dim if dim_out is None else dim_out
        check_positive(dim=dim, dim_out=dim_out)
        check_choice("stride", stride, (1, 2))
        if not isinstance(feat_size, tuple | list) or len(feat_size) != 2:
            raise ValueError(f"feat_size must be the height and width of the map, got {feat_size!r}")
        h, w = feat_size
        check_positive(**{"feat_size[0]": h, "feat_size[1]": w})
        self.d = d = key_width(dim_out, num_heads, dim_head, qk_ratio)
        self.dim, self.dim_out, self.num_heads, self.feat_size = dim, dim_out, num_heads, (h, w)
        self.scale_pos_embed = scale_pos_embed
        self.qkv = Conv(dim, 2 * num_heads * d + dim_out, 1, bias=qkv_bias, rngs=rngs, **options)
        reset_truncated_normal(self.qkv, rngs, dim**-0.5)
        table, dtype = truncated_normal(d**-0.5), options.get("param_dtype", jnp.float32)
        self.height_rel = nnx.Param(table(rngs.params(), (2 * h - 1, d), dtype))
        self.width_rel = nnx.Param(table(rngs.params(), (2 * w - 1, d), dtype))
        self.pool = nnx.data(AvgPool(2) if stride == 2 else None)
        self.precision = options.get("precision")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes attention in a map (b, h, w, dim) of size ``feat_size``."""
        h, w = self.feat_size
        check_shape("x", x, "b h w dim", h=h, w=w, dim=self.dim)
        features = self.num_heads * self.d
        query, key, value = (
            part.reshape(*x.shape[:3], self.num_heads, -1)
            for part in jnp.split(self.qkv(x), (features, 2 * features), axis=-1)
        )
        out, weights = ops.relative_attention(
            query,
            key,
            value,
            self.height_rel[...],
            self.width_rel[...],
            scale_positions=self.scale_pos_embed,
            need_weights=ops.is_recording(self),
            precision=self.precision,
        )
        if weights is not None:
            ops.record(self, "weights", weights)
        out = out.reshape(*x.shape[:3], self.dim_out)
        return out if self.pool is None else self.pool(out)
