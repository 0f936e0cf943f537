"""Attention pooling: multi-head attention of one token to all places of a map, in place of their mean.

Radford et al., "Learning transferable visual models from natural language supervision" (CLIP), ICML 2021: the tokens
are the mean of the map, or a learned one, and the places, plus a learned position each; the output is the first token's
after multi-head self-attention, per head ``sum_n softmax_n(q_0 . k_n / sqrt(d)) v_n``. `RotaryAttentionPool2d`, which
is timm's, turns queries and keys of the places instead (Su et al., "RoFormer: enhanced transformer with rotary position
embedding", 2021).

Differs from timm's classes, which compute all queries: only those that are used. The table of positions is resized in
at least float32, and the angles of the rotations are computed in float64, where theirs are float32 for any input.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_choice, check_positive, check_rate, check_shape
from ..layers import Dropout, Linear
from ..options import Options, check_options

Size = int | tuple[int, int]


class _AttentionPool(nnx.Module):
    """What both pools share: the first token, the projections and the attention."""

    def __init__(
        self,
        in_features: int,
        out_features: int | None,
        embed_dim: int | None,
        head_dim: int,
        num_heads: int | None,
        qkv_bias: bool,
        qkv_separate: bool,
        pool_type: str,
        class_token: bool,
        drop_rate: float,
        rngs: nnx.Rngs,
        options: Options,
    ) -> None:
        check_options(self, options)
        embed_dim = in_features if embed_dim is None else embed_dim
        out_features = in_features if out_features is None else out_features
        check_positive(in_features=in_features, embed_dim=embed_dim)
        check_positive(0, out_features=out_features)
        for name, size in (("head_dim", head_dim),) if num_heads is None else (("num_heads", num_heads),):
            check_positive(**{name: size})
            if embed_dim % size:
                raise ValueError(f"{name} must divide embed_dim={embed_dim}, got {size}")
        if class_token and embed_dim != in_features:
            raise ValueError(f"embed_dim must be in_features={in_features} with class_token, got {embed_dim}")
        check_choice("pool_type", pool_type, ("token", ""))
        check_rate("drop_rate", drop_rate)
        self.in_features, self.pool_type, self.qkv_separate = in_features, pool_type, qkv_separate
        self.num_heads = embed_dim // head_dim if num_heads is None else num_heads
        self.head_dim = embed_dim // self.num_heads
        self.precision = options.get("precision")
        linear = partial(Linear, rngs=rngs, **options)
        if class_token:
            self.cls_token = nnx.Param(jnp.zeros((1, embed_dim), options.get("param_dtype", jnp.float32)))
        if qkv_separate:
            self.q, self.k, self.v = (linear(in_features, embed_dim, bias=qkv_bias) for _ in range(3))
        else:
            self.qkv = linear(in_features, 3 * embed_dim, bias=qkv_bias)
        self.drop = Dropout(drop_rate, rngs=rngs)
        self.proj = nnx.data(linear(embed_dim, out_features) if out_features else None)

    def _tokens(self, x: jax.Array) -> jax.Array:
        """The first token and the places of a map (b, h, w, c), (b, 1 + h * w, c)."""
        places = ops.map_to_tokens(x)
        if not hasattr(self, "cls_token"):
            wide = places.astype(ops.score_dtype(x.dtype))
            return jnp.concatenate([jnp.mean(wide, axis=1, keepdims=True).astype(x.dtype), places], axis=1)
        first = jnp.broadcast_to(self.cls_token[...], (x.shape[0], 1, self.in_features))
        return jnp.concatenate([first.astype(x.dtype), places], axis=1)

    def _pool(self, tokens: jax.Array, h: int, w: int, turn: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Attention of the first token, or of all places; ``turn`` gives queries and keys of places their positions."""
        b, n, _ = tokens.shape
        parts = (
            [self.q(tokens), self.k(tokens), self.v(tokens)]
            if self.qkv_separate
            else jnp.split(self.qkv(tokens), 3, axis=-1)
        )
        query, key, value = (part.reshape(b, n, self.num_heads, self.head_dim) for part in parts)
        heads, weights = ops.dot_product_attention(
            query[:, :1] if self.pool_type == "token" else turn(query[:, 1:]),
            jnp.concatenate([key[:, :1], turn(key[:, 1:])], axis=1),
            value,
            temperature=math.sqrt(self.head_dim),
            need_weights=ops.is_recording(self),
            precision=self.precision,
        )
        if weights is not None:
            ops.record(self, "weights", weights[..., 1:])
        out = self.drop(heads.reshape(b, heads.shape[1], self.num_heads * self.head_dim))
        if self.proj is not None:
            out = self.proj(out)
        return out[:, 0] if self.pool_type == "token" else out.reshape(b, h, w, out.shape[-1])


class AttentionPool2d(_AttentionPool):
    """Pools a map by multi-head attention of its mean to all places, with learned positions (CLIP).

    Records the weights of the places, ``weights`` (b, heads, 1, h * w), without that of the first token to itself; with
    ``pool_type=""`` (b, heads, h * w, h * w).

    Args:
        in_features: Number of channels of the map.
        feat_size: Size of the map that the table of positions is for, one number or (height, width); for another size
            it is resized, bicubically.
        out_features: Number of features of the output, ``in_features`` by default; 0 for no projection.
        embed_dim: Number of features of all heads, ``in_features`` by default.
        head_dim: Number of features per head; must divide ``embed_dim``.
        num_heads: Number of heads, in place of ``head_dim``.
        qkv_bias: Whether the projections to queries, keys and values have biases.
        qkv_separate: Whether they are three layers instead of one.
        pool_type: "token" for the output of the first token, "" for those of all places, a map.
        class_token: Whether the first token is a learned one instead of the mean.
        drop_rate: Dropout rate of the heads.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, the heads do not divide the features, ``embed_dim`` is not that of the class
            token, the pool is unknown, or the rate is outside [0, 1].

    Example:
        >>> pool = AttentionPool2d(64, (6, 8), out_features=20, num_heads=4, rngs=nnx.Rngs(0))
        >>> pool(jnp.ones((2, 6, 8, 64))).shape
        (2, 20)
    """

    def __init__(
        self,
        in_features: int,
        feat_size: Size = 7,
        out_features: int | None = None,
        embed_dim: int | None = None,
        head_dim: int = 64,
        num_heads: int | None = None,
        qkv_bias: bool = True,
        qkv_separate: bool = False,
        pool_type: str = "token",
        class_token: bool = False,
        drop_rate: float = 0.0,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        self.feat_size = _pair("feat_size", feat_size)
        super().__init__(
            in_features,
            out_features,
            embed_dim,
            head_dim,
            num_heads,
            qkv_bias,
            qkv_separate,
            pool_type,
            class_token,
            drop_rate,
            rngs,
            options,
        )
        rows = self.feat_size[0] * self.feat_size[1] + 1
        param_dtype = options.get("param_dtype", jnp.float32)
        self.pos_embed = nnx.Param(_normal(rngs, (rows, in_features), param_dtype, in_features))
        for layer in (self.q, self.k, self.v) if qkv_separate else (self.qkv,):
            layer.kernel[...] = _normal(rngs, layer.kernel.shape, param_dtype, in_features)
            if layer.bias is not None:
                layer.bias[...] = jnp.zeros_like(layer.bias[...])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pools a map (b, h, w, in_features) to (b, out_features), or (b, h, w, out_features) with pool_type ""."""
        check_shape("x", x, "b h w c", c=self.in_features)
        _, h, w, c = x.shape
        table = self.pos_embed[...].astype(ops.score_dtype(self.pos_embed.dtype))
        if self.feat_size != (h, w):
            places = jax.image.resize(table[1:].reshape(*self.feat_size, c), (h, w, c), "bicubic")
            table = jnp.concatenate([table[:1], places.reshape(h * w, c)])
        tokens = ops.add(self._tokens(ops.cast(x, None)), table.astype(self.pos_embed.dtype))
        return self._pool(tokens, h, w, lambda places: places)


class RotaryAttentionPool2d(_AttentionPool):
    """Pools a map by multi-head attention of its mean to all places, with rotary positions and for any size (timm).

    Records the weights of the places, ``weights`` (b, heads, 1, h * w), without that of the first token to itself; with
    ``pool_type=""`` (b, heads, h * w, h * w).

    Args:
        in_features: Number of channels of the map.
        out_features: Number of features of the output, ``in_features`` by default; 0 for no projection.
        ref_feat_size: Size to which positions are scaled, one number or (height, width).
        embed_dim: Number of features of all heads, ``in_features`` by default.
        head_dim: Number of features per head, a multiple of 4; must divide ``embed_dim``.
        num_heads: Number of heads, in place of ``head_dim``.
        qkv_bias: Whether the projections to queries, keys and values have biases.
        qkv_separate: Whether they are three layers instead of one.
        pool_type: "token" for the output of the first token, "" for those of all places, a map.
        class_token: Whether the first token is a learned one instead of the mean.
        drop_rate: Dropout rate of the heads.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: As for `AttentionPool2d`, or if the features per head are no multiple of 4.

    Example:
        >>> pool = RotaryAttentionPool2d(64, out_features=20, num_heads=4, rngs=nnx.Rngs(0))
        >>> pool(jnp.ones((2, 6, 8, 64))).shape
        (2, 20)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int | None = None,
        ref_feat_size: Size = 7,
        embed_dim: int | None = None,
        head_dim: int = 64,
        num_heads: int | None = None,
        qkv_bias: bool = True,
        qkv_separate: bool = False,
        pool_type: str = "token",
        class_token: bool = False,
        drop_rate: float = 0.0,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        self.reference = _pair("ref_feat_size", ref_feat_size)
        super().__init__(
            in_features,
            out_features,
            embed_dim,
            head_dim,
            num_heads,
            qkv_bias,
            qkv_separate,
            pool_type,
            class_token,
            drop_rate,
            rngs,
            options,
        )
        if self.head_dim % 4:
            raise ValueError(f"head_dim, embed_dim / num_heads, must be a multiple of 4, got {self.head_dim}")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pools a map (b, h, w, in_features) to (b, out_features), or (b, h, w, out_features) with pool_type ""."""
        check_shape("x", x, "b h w c", c=self.in_features)
        _, h, w, _ = x.shape
        angles = ops.rotary_angles(h, w, self.head_dim // 4, self.reference)
        return self._pool(self._tokens(ops.cast(x, None)), h, w, lambda places: ops.rotate(places, angles))


def _pair(argument: str, size: Size) -> tuple[int, int]:
    pair = size if isinstance(size, tuple) else (size, size)
    check_positive(**{f"{argument}[{axis}]": length for axis, length in enumerate(pair)})
    return pair


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], dtype: jax.typing.DTypeLike, in_features: int) -> jax.Array:
    """Normal with deviation in_features^-0.5, between -2 and 2."""
    root = math.sqrt(in_features)
    return jax.random.truncated_normal(rngs.params(), -2 * root, 2 * root, shape, dtype) / root
