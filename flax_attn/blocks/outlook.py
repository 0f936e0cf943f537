"""Outlook attention: each place of a map says, without keys, how the values of its neighbourhood are mixed.

Yuan, Hou, Jiang, Feng & Yan, "VOLO: vision outlooker for visual recognition", TPAMI 2022, section 3.1: a linear layer
of each place gives weights, k^2 x k^2 per head, ``softmax(W x / sqrt(d))``, for the k x k window of values around it,
and ``out = proj(sum of the windows, where they overlap)``. With a stride, ``W`` sees averages of squares of places.

It is the authors' code, channels last too.

Differs from fightingcv's ``OutlookAttention``, which gives ``unfold`` the padding as its dilation and the stride as its
padding: the two are equal where both are 1, as they are by default, and for most other sizes that one raises an error.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_heads, check_positive, check_rate, check_shape
from ..layers import AvgPool, Dropout, Linear
from ..options import Options, check_options


class OutlookAttention(nnx.Module):
    """Mixes the values in the window around each place, by weights that the place alone decides (VOLO).

    Args:
        dim: Number of channels.
        num_heads: Number of heads, which must divide ``dim``.
        kernel_size: Height and width of a window, in pixels.
        padding: Number of zeros on each side of the map.
        stride: Distance between windows.
        qkv_bias: Whether values have a bias.
        attn_drop: Dropout rate of the weights.
        proj_drop: Dropout rate of the output.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, ``num_heads`` does not divide ``dim``, a rate is outside [0, 1], or the
            padding does not give a window for each ``stride`` rows and columns.

    Example:
        >>> attention = OutlookAttention(32, 4, stride=2, rngs=nnx.Rngs(0))
        >>> attention(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
        >>> {path: weights.shape for path, weights in ops.attention_maps(attention, jnp.ones((2, 5, 7, 32))).items()}
        {'weights': (2, 4, 108, 9)}
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int = 3,
        padding: int = 1,
        stride: int = 1,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_heads(num_heads, dim=dim)
        check_positive(kernel_size=kernel_size, stride=stride)
        check_positive(0, padding=padding)
        check_rate("attn_drop", attn_drop)
        check_rate("proj_drop", proj_drop)
        self.dim, self.num_heads, self.kernel_size = dim, num_heads, kernel_size
        self.padding, self.stride = padding, stride
        self.v = Linear(dim, dim, bias=qkv_bias, rngs=rngs, **options)
        self.attn = Linear(dim, kernel_size**4 * num_heads, rngs=rngs, **options)
        self.attn_drop = Dropout(attn_drop, rngs=rngs)
        self.proj = Linear(dim, dim, rngs=rngs, **options)
        self.proj_drop = Dropout(proj_drop, rngs=rngs)
        self.pool = nnx.data(AvgPool(stride, ceil_mode=True) if stride > 1 else None)
        self.precision = options.get("precision")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Mixes the values of a map (b, h, w, dim).

        Under `flax_attn.attention_maps`, each place's weights are (b, heads, places * k^2, k^2).
        """
        check_shape("x", x, "b h w dim", dim=self.dim)
        heads, area = self.num_heads, self.kernel_size**2
        values = ops.unfold(self.v(x), self.kernel_size, self.stride, self.padding)
        scores = self.attn(x if self.pool is None else self.pool(x))
        if values.shape[1:3] != scores.shape[1:3]:
            raise ValueError(
                f"padding must give a window for each {self.stride} rows and columns, {scores.shape[1:3]}, got "
                f"{values.shape[1:3]} with {self.padding}"
            )
        b, rows, columns, _ = scores.shape
        scores = scores.reshape(b, rows * columns, heads, area, area)
        scores = scores.astype(ops.score_dtype(scores.dtype)) * (self.dim // heads) ** -0.5
        weights = self.attn_drop(jnp.swapaxes(jax.nn.softmax(scores, axis=-1), 1, 2).astype(values.dtype))
        ops.record(self, "weights", weights.reshape(b, heads, rows * columns * area, area))
        values = values.reshape(b, rows * columns, area, heads, self.dim // heads)
        mixed = jnp.einsum("bhnqk,bnkhd->bnqhd", weights, values, precision=self.precision)
        mixed = mixed.reshape(b, rows, columns, self.kernel_size, self.kernel_size, self.dim)
        out = ops.fold(mixed, (x.shape[1], x.shape[2]), self.stride, self.padding)
        return self.proj_drop(self.proj(out))
