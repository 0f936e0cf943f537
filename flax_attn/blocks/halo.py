"""Attention of the blocks of a map to the windows around them.

Vaswani, Ramachandran, Srinivas, Parmar, Hechtman & Shlens, "Scaling local self-attention for parameter efficient visual
backbones", CVPR 2021, section 2.2: the map is cut into blocks, and the queries of a block share one window of keys, the
block and a halo around it: ``softmax(q k^T / sqrt(d) + q r^T) v``, where r is the sum of a vector for the distance
between rows and one for that between columns. Memory grows with the number of places, not with its square.

Differs from the paper, as timm does: 1/sqrt(d) does not scale what the positions add, and the zeros around the map take
part; ``scale_pos_embed`` and ``mask_padding`` change both, and with ``out_proj`` the block is that of halonet-pytorch,
whose checkpoints have all keys, then all values, as ``rename=NAMES["halonet_pytorch.HaloAttention"]`` knows.

Differs from fightingcv's ``HaloAttention``, which has halonet-pytorch's layers and the opposite of its mask: it hides
the map and attends to the zeros around it.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_choice, check_positive, check_shape
from ..layers import AvgPool, Conv, Linear
from ..layers.initializers import reset_truncated_normal, truncated_normal
from ..options import Options, check_options
from .bottleneck import key_width


class HaloAttention(nnx.Module):
    """Multi-head attention of each block of a map to the window around it, with learned relative positions (HaloNet).

    Args:
        dim: Number of channels.
        dim_out: Number of value channels, and without ``out_proj`` of output channels; None for ``dim``.
        stride: 1, or 2 to halve the output: only every other place has a query.
        num_heads: Number of heads, which must divide ``dim_out``.
        dim_head: Number of query and key features per head; None takes them from ``qk_ratio``.
        block_size: Height and width of a block, in pixels; must divide those of the map.
        halo_size: How far a window reaches beyond its block.
        qk_ratio: Query and key features of all heads relative to ``dim_out``, rounded to a multiple of 8.
        qkv_bias: Whether queries, keys and values have a bias.
        avg_down: Whether a stride of 2 is an average pool of the output instead, as it always is for odd blocks.
        scale_pos_embed: Whether 1/sqrt(d) also scales what the positions add.
        mask_padding: Whether places beyond the map are hidden; otherwise their keys and values are 0.
        out_proj: Whether a linear layer with bias follows, from ``dim_out`` to ``dim`` channels.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, ``num_heads`` does not divide ``dim_out``, ``stride`` is neither 1 nor 2, or
            ``block_size`` does not divide the map's height and width.

    Example:
        >>> attention = HaloAttention(32, block_size=4, halo_size=1, rngs=nnx.Rngs(0))
        >>> attention(jnp.ones((2, 8, 12, 32))).shape
        (2, 8, 12, 32)
    """

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        stride: int = 1,
        num_heads: int = 8,
        dim_head: int | None = None,
        block_size: int = 8,
        halo_size: int = 3,
        qk_ratio: float = 1.0,
        qkv_bias: bool = False,
        avg_down: bool = False,
        scale_pos_embed: bool = False,
        mask_padding: bool = False,
        out_proj: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        dim_out = dim if dim_out is None else dim_out
        check_positive(dim=dim, dim_out=dim_out, block_size=block_size)
        check_positive(0, halo_size=halo_size)
        check_choice("stride", stride, (1, 2))
        self.d = d = key_width(dim_out, num_heads, dim_head, qk_ratio)
        self.dim, self.dim_out, self.num_heads = dim, dim_out, num_heads
        self.block_size, self.halo_size, self.window = block_size, halo_size, block_size + 2 * halo_size
        self.scale_pos_embed, self.mask_padding = scale_pos_embed, mask_padding
        pools = stride == 2 and (avg_down or block_size % 2 == 1)
        self.query_stride = 1 if pools else stride
        self.q = Conv(dim, num_heads * d, 1, self.query_stride, bias=qkv_bias, rngs=rngs, **options)
        self.kv = Conv(dim, num_heads * d + dim_out, 1, bias=qkv_bias, rngs=rngs, **options)
        for layer in (self.q, self.kv):
            reset_truncated_normal(layer, rngs, dim**-0.5)
        table, dtype = truncated_normal(d**-0.5), options.get("param_dtype", jnp.float32)
        self.height_rel = nnx.Param(table(rngs.params(), (2 * self.window - 1, d), dtype))
        self.width_rel = nnx.Param(table(rngs.params(), (2 * self.window - 1, d), dtype))
        self.pool = nnx.data(AvgPool(2) if pools else None)
        self.proj = nnx.data(Linear(dim_out, dim, rngs=rngs, **options) if out_proj else None)
        self.precision = options.get("precision")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes attention in a map (b, h, w, dim)."""
        check_shape("x", x, "b h w dim", dim=self.dim)
        h, w = x.shape[1:3]
        block = self.block_size
        if h % block != 0 or w % block != 0:
            raise ValueError(f"block_size must divide the map's height and width {(h, w)}, got {block}")
        side, size = block // self.query_stride, (h // self.query_stride, w // self.query_stride)
        query = ops.window_partition(self.q(x), (side, side))
        b = query.shape[0]
        keys = ops.unfold(self.kv(x), self.window, block, self.halo_size)
        keys = keys.reshape(b, self.window, self.window, self.num_heads, -1)
        out, weights = ops.relative_attention(
            query.reshape(b, side, side, self.num_heads, self.d),
            keys[..., : self.d],
            keys[..., self.d :],
            self.height_rel[...],
            self.width_rel[...],
            scale_positions=self.scale_pos_embed,
            mask=ops.repeat_windows(self._inside(h, w), b) if self.mask_padding else None,
            need_weights=ops.is_recording(self),
            precision=self.precision,
        )
        if weights is not None:
            ops.record(self, "weights", weights)
        out = ops.window_reverse(out.reshape(b, side * side, self.dim_out), (side, side), size)
        for layer in (self.pool, self.proj):
            out = out if layer is None else layer(out)
        return out

    def _inside(self, h: int, w: int) -> jax.Array:
        """Which places of each window lie on the map, (windows, 1, 1, places)."""
        inside = ops.unfold(jnp.ones((1, h, w, 1)), self.window, self.block_size, self.halo_size)
        return inside.reshape(-1, 1, 1, self.window**2) > 0
