"""Multi-query attention on maps: all heads share one key and one value per place.

Shazeer, "Fast transformer decoding: one write-head is all you need", 2019, in the form for maps of Qin et al.,
"MobileNetV4: universal models for the mobile ecosystem", ECCV 2024: ``head_i = softmax(q_i . k^T / sqrt(d)) . v``.
Queries come from an average-pooled map, keys and values from a strided depthwise convolution, each with BatchNorm, and
the heads are resized to the map bilinearly before the last projection.

Differs from timm's ``MultiQueryAttention2d``: padding is symmetric alone (there is no TensorFlow's "same"), and there
is no mask. As there, rows and columns that ``query_strides`` does not divide are dropped from the output.
"""

import math
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_rate, check_shape, is_below
from ..layers import AvgPool, BatchNorm, Conv, Dropout
from ..options import Options, check_options


class MultiQueryAttention2d(nnx.Module):
    """Attention between the places of a map with one key and value for all heads, which may be strided (MobileNetV4).

    Args:
        dim: Number of channels.
        dim_out: Number of channels of the output, ``dim`` by default.
        num_heads: Number of heads; must divide ``dim`` unless ``key_dim`` and ``value_dim`` are given.
        key_dim: Number of features of keys, and of queries per head, dim / num_heads by default.
        value_dim: Number of features of values, dim / num_heads by default.
        query_strides: By how much the map of the queries is smaller than ``x``, one number or (height, width).
        kv_stride: By how much the map of keys and values is smaller than ``x``.
        dw_kernel_size: Odd size of the depthwise kernel; only used if ``kv_stride`` is above 1.
        dilation: Dilation of that kernel.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
        use_bias: Whether the 1x1 convolutions have biases.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, the heads do not divide the channels, the kernel is even, a rate is outside
            [0, 1], or a map is smaller than ``query_strides``.

    Example:
        >>> import jax.numpy as jnp
        >>> attention = MultiQueryAttention2d(32, num_heads=4, kv_stride=2, rngs=nnx.Rngs(0))
        >>> attention(jnp.ones((2, 6, 8, 32))).shape
        (2, 6, 8, 32)
    """

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        num_heads: int = 8,
        key_dim: int | None = None,
        value_dim: int | None = None,
        query_strides: int | tuple[int, int] = 1,
        kv_stride: int = 1,
        dw_kernel_size: int = 3,
        dilation: int = 1,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        use_bias: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(dim=dim, num_heads=num_heads, kv_stride=kv_stride, dilation=dilation)
        if dim % num_heads and None in (key_dim, value_dim):
            raise ValueError(f"num_heads must divide dim={dim}, got {num_heads}")
        key_dim, value_dim = (dim // num_heads if size is None else size for size in (key_dim, value_dim))
        dim_out = dim if dim_out is None else dim_out
        check_positive(dim_out=dim_out, key_dim=key_dim, value_dim=value_dim, dw_kernel_size=dw_kernel_size)
        if dw_kernel_size % 2 == 0:
            raise ValueError(f"dw_kernel_size must be odd, got {dw_kernel_size}")
        pair = query_strides if isinstance(query_strides, tuple) else (query_strides, query_strides)
        check_positive(**{f"query_strides[{axis}]": stride for axis, stride in enumerate(pair)})
        check_rate("attn_drop", attn_drop)
        check_rate("proj_drop", proj_drop)
        self.dim, self.num_heads, self.key_dim, self.strides = dim, num_heads, key_dim, pair
        self.precision = options.get("precision")

        def strided() -> Conv | None:
            if kv_stride == 1:
                return None
            padding = (kv_stride - 1 + dilation * (dw_kernel_size - 1)) // 2
            return Conv(
                dim, dim, dw_kernel_size, kv_stride, padding, dilation, groups=dim, bias=False, rngs=rngs, **options
            )

        pool = AvgPool(pair) if pair != (1, 1) else None
        self.query = _Projection(dim, num_heads * key_dim, pool, use_bias, rngs, options)
        self.key = _Projection(dim, key_dim, strided(), use_bias, rngs, options)
        self.value = _Projection(dim, value_dim, strided(), use_bias, rngs, options)
        self.attn_drop = Dropout(attn_drop, rngs=rngs)
        proj = Conv(num_heads * value_dim, dim_out, 1, bias=use_bias, rngs=rngs, **options)
        self.output = nnx.Dict(proj=proj, drop=Dropout(proj_drop, rngs=rngs))
        for conv in (self.key.down_conv, self.value.down_conv, proj):
            _xavier(conv, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, h, w, dim) to (b, h, w, dim_out)."""
        check_shape("x", x, "b h w c", c=self.dim)
        if any(is_below(size, stride) for size, stride in zip(x.shape[1:3], self.strides, strict=True)):
            raise ValueError(f"x must be at least {self.strides} pixels, its query_strides, got {x.shape[1:3]}")
        query, key, value = self.query(x), self.key(x), self.value(x)
        b, h, w, _ = query.shape
        # One head that answers the queries of all: the key and the value are not repeated for each.
        queries = jnp.moveaxis(query.reshape(b, h * w, self.num_heads, self.key_dim), 2, 1)
        heads, weights = ops.dot_product_attention(
            queries.reshape(b, self.num_heads * h * w, 1, self.key_dim),
            ops.map_to_tokens(key)[:, :, None],
            ops.map_to_tokens(value)[:, :, None],
            temperature=math.sqrt(self.key_dim),
            weights_fn=self.attn_drop.draw(),
            need_weights=ops.is_recording(self),
            precision=self.precision,
        )
        if weights is not None:
            ops.record(self, "weights", weights.reshape(b, self.num_heads, h * w, -1))
        heads = jnp.moveaxis(heads.reshape(b, self.num_heads, h * w, -1), 1, 2).reshape(b, h, w, -1)
        if self.strides != (1, 1):
            wide = heads.astype(ops.score_dtype(heads.dtype))
            size = (b, h * self.strides[0], w * self.strides[1], heads.shape[-1])
            heads = jax.image.resize(wide, size, "bilinear").astype(heads.dtype)
        out: jax.Array = self.output["drop"](self.output["proj"](heads))
        return out


class _Projection(nnx.Module):
    """A 1x1 convolution, of a smaller map after BatchNorm where ``down`` is given."""

    def __init__(
        self, dim: int, width: int, down: AvgPool | Conv | None, bias: bool, rngs: nnx.Rngs, options: Options
    ) -> None:
        self.down_pool = nnx.data(down if isinstance(down, AvgPool) else None)
        self.down_conv: Conv | None = nnx.data(down if isinstance(down, Conv) else None)
        self.norm = nnx.data(BatchNorm(dim, rngs=rngs, **options) if down is not None else None)
        self.proj = Conv(dim, width, 1, bias=bias, rngs=rngs, **options)
        _xavier(self.proj, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (self.down_pool, self.down_conv, self.norm):
            x = x if layer is None else layer(x)
        return self.proj(x)


def _xavier(conv: Conv | None, rngs: nnx.Rngs) -> None:
    """Draws a kernel anew, uniform within sqrt(6 / (fan_in + fan_out))."""
    if conv is not None:
        *window, fan_in, out = conv.kernel.shape
        bound = math.sqrt(6 / (math.prod(window) * (fan_in + out)))
        conv.kernel[...] = jax.random.uniform(rngs.params(), conv.kernel.shape, conv.kernel.dtype, -bound, bound)
