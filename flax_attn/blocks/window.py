"""Attention in windows, shifted or not, with a bias for each relative position.

Liu, Lin, Cao, Hu, Wei, Zhang, Lin & Guo, "Swin Transformer: hierarchical vision transformer using shifted windows",
ICCV 2021: ``softmax(q k^T / sqrt(d) + B) v`` within a window (equation 4), where B has a row of a table for each
position of a query relative to a key. Every other block of the network shifts the map by half a window first.

Differs from the authors' code: a mask hides keys, as in all blocks here; the masks of 0 and -100 there are a ``bias``.
The map of `ShiftedWindowAttention` may have any size, as torchvision's: zeros below and to the right fill the last
windows and take part in attention, and an axis that one window covers is not shifted.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .. import ops
from .._check import check_heads, check_positive, check_rate, check_shape
from ..layers import Dropout, Linear
from ..layers.initializers import truncated_normal
from ..ops.attention import check_mask
from ..options import Options, check_options

# What the authors add to the score of two places that only the shift brought together.
APART = -100.0


class _Windowed(nnx.Module):
    """What both classes hold."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        window_size: tuple[int, int],
        qkv_bias: bool,
        attn_drop: float,
        proj_drop: float,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        height, width = window_size
        check_positive(dim=dim, num_heads=num_heads, head_dim=head_dim)
        self.dim, self.num_heads, self.head_dim, self.window_size = dim, num_heads, head_dim, window_size
        self.relative_position_bias_table = nnx.Param(
            truncated_normal(0.02)(
                rngs.params(),
                ((2 * height - 1) * (2 * width - 1), num_heads),
                options.get("param_dtype", jnp.float32),
            )
        )
        self.qkv = Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias, rngs=rngs, **options)
        self.attn_drop = Dropout(attn_drop, rngs=rngs)
        self.proj = Linear(num_heads * head_dim, dim, rngs=rngs, **options)
        self.proj_drop = Dropout(proj_drop, rngs=rngs)
        self.precision = options.get("precision")

    def attend(self, x: jax.Array, mask: jax.Array | None, bias: jax.Array | None) -> jax.Array:
        """Attention in windows (b * windows, n, dim), with a mask and bias (windows, n, n)."""
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim)
        table = self.relative_position_bias_table[...][ops.relative_position_index(self.window_size)]
        positions = jnp.transpose(table, (2, 0, 1))[None]
        if bias is not None:
            positions = ops.add(positions, bias[:, None])
        out, weights = ops.dot_product_attention(
            *(qkv[:, :, i] for i in range(3)),
            temperature=self.head_dim**0.5,
            mask=None if mask is None else ops.repeat_windows(mask[:, None], b),
            bias=positions if bias is None else ops.repeat_windows(positions, b),
            weights_fn=self.attn_drop.draw(),
            need_weights=ops.is_recording(self),
            precision=self.precision,
        )
        if weights is not None:
            ops.record(self, "weights", weights)
        return self.proj_drop(self.proj(out.reshape(b, n, self.num_heads * self.head_dim)))


class WindowAttention(_Windowed):
    """Multi-head attention among the tokens of a window, with a learned bias for each relative position (Swin).

    The windows of a map come from `flax_attn.ops.window_partition`, and go back by `flax_attn.ops.window_reverse`.

    Args:
        dim: Number of features of a token.
        num_heads: Number of heads.
        head_dim: Number of features per head; None for ``dim // num_heads``.
        window_size: Height and width of a window, in tokens; one number for both.
        qkv_bias: Whether queries, keys and values have a bias.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, ``num_heads`` does not divide ``dim`` where ``head_dim`` is None, or a rate is
            outside [0, 1].

    Example:
        >>> attention = WindowAttention(32, 4, window_size=(3, 4), rngs=nnx.Rngs(0))
        >>> windows = ops.window_partition(jnp.ones((2, 6, 8, 32)), (3, 4))
        >>> windows.shape, attention(windows).shape
        ((8, 12, 32), (8, 12, 32))
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int | None = None,
        window_size: int | tuple[int, int] = 7,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_rate("attn_drop", attn_drop)
        check_rate("proj_drop", proj_drop)
        if head_dim is None:
            check_heads(num_heads, dim=dim)
            head_dim = dim // num_heads
        size = _pair("window_size", (window_size, window_size) if isinstance(window_size, int) else window_size)
        super().__init__(dim, num_heads, head_dim, size, qkv_bias, attn_drop, proj_drop, rngs=rngs, **options)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None, bias: jax.Array | None = None) -> jax.Array:
        """Computes attention.

        Args:
            x: Windows (b * windows, n, dim); those of one map follow each other.
            mask: (windows, n, n), for the windows of every map; booleans or integers, True or 1 keeps a key and False
                or 0 hides it from a query.
            bias: Floats of the same shape, added to the scores; minus infinity hides a key.

        Returns:
            (b * windows, n, dim).

        Raises:
            ValueError: If a window has another area than ``window_size``, or the mask or bias does not fit.
        """
        n = self.window_size[0] * self.window_size[1]
        check_shape("x", x, "b n dim", n=n, dim=self.dim)
        given = {name: array for name, array in (("mask", mask), ("bias", bias)) if array is not None}
        for name, array in given.items():
            check_shape(name, array, "windows n n", n=n)
            windows = array.shape[0]
            if x.shape[0] % windows != 0:
                raise ValueError(f"{name} must be for a number of windows that divides {x.shape[0]}, got {windows}")
            check_mask(mask, bias, (windows, n, n), "windows, n, n")
        return self.attend(x, mask, bias)


class ShiftedWindowAttention(_Windowed):
    """Multi-head attention in the windows of a map, which is shifted first, with learned relative positions (Swin).

    Args:
        dim: Number of channels.
        window_size: Height and width of a window, in pixels.
        shift_size: By how many pixels the map moves up and to the left, below ``window_size``; (0, 0) for none.
        num_heads: Number of heads, which must divide ``dim``.
        qkv_bias: Whether queries, keys and values have a bias.
        attention_dropout: Dropout rate of the attention weights.
        dropout: Dropout rate of the output.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, a shift is not below the window's size, ``num_heads`` does not divide ``dim``,
            or a rate is outside [0, 1].

    Example:
        >>> attention = ShiftedWindowAttention(32, (7, 7), (3, 3), num_heads=4, rngs=nnx.Rngs(0))
        >>> attention(jnp.ones((2, 14, 20, 32))).shape
        (2, 14, 20, 32)
    """

    def __init__(
        self,
        dim: int,
        window_size: tuple[int, int],
        shift_size: tuple[int, int],
        num_heads: int,
        qkv_bias: bool = True,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_rate("attention_dropout", attention_dropout)
        check_rate("dropout", dropout)
        check_heads(num_heads, dim=dim)
        size, shift = _pair("window_size", window_size), _pair("shift_size", shift_size, 0)
        if any(by >= length for by, length in zip(shift, size, strict=True)):
            raise ValueError(f"shift_size must be below window_size={size}, got {shift}")
        super().__init__(
            dim, num_heads, dim // num_heads, size, qkv_bias, attention_dropout, dropout, rngs=rngs, **options
        )
        self.shift_size = shift
        self.dtype = options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes attention in a map (b, h, w, dim)."""
        check_shape("x", x, "b h w dim", dim=self.dim)
        x = ops.cast(x, self.dtype)
        h, w = x.shape[1:3]
        below, right = (-length % window for length, window in zip((h, w), self.window_size, strict=True))
        x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
        size = (h + below, w + right)
        up, left = (
            by if length > window else 0
            for by, length, window in zip(self.shift_size, size, self.window_size, strict=True)
        )
        windows = ops.window_partition(jnp.roll(x, (-up, -left), (1, 2)), self.window_size)
        bias = _bias_of_parts(size, (up, left), self.window_size) if up or left else None
        windows = self.attend(windows, None, bias)
        out = jnp.roll(ops.window_reverse(windows, self.window_size, size), (up, left), (1, 2))
        return out[:, :h, :w]


def _bias_of_parts(size: tuple[int, int], shift: tuple[int, int], window_size: tuple[int, int]) -> jax.Array:
    """-100 between places of a window, (windows, n, n), that were apart before the shift."""
    rows, columns = (np.arange(length) >= length - by for length, by in zip(size, shift, strict=True))
    part = jnp.asarray(rows[:, None] + 2 * columns[None], jnp.float32)
    parts = ops.window_partition(part[None, :, :, None], window_size)
    return jnp.where(parts == jnp.swapaxes(parts, 1, 2), 0.0, APART)


def _pair(argument: str, value: tuple[int, int], minimum: int = 1) -> tuple[int, int]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{argument} must be a height and a width, got {value!r}")
    check_positive(minimum, **{f"{argument}[{axis}]": length for axis, length in enumerate(value)})
    return value[0], value[1]
