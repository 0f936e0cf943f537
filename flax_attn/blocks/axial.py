"""Axial attention: multi-head attention along the columns and along the rows of a map.

Ho, Kalchbrenner, Weissenborn & Salimans, "Axial attention in multidimensional transformers", 2019, section 3:
``MHA_height(x) + MHA_width(x)``, or ``MHA_width(MHA_height(x))``, with weights of their own for each axis.

Differs from the paper's layers, which have a norm, a residual and position embeddings around the attention, as
``axial_attention.AxialAttention`` does.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import Linear
from ..options import Options, check_options


class AxialAttention(nnx.Module):
    """Attends along the columns and along the rows of a map, with several heads (axial attention).

    `attention_maps` gives ``height_weights`` (b * w, heads, h, h) and ``width_weights`` (b * h, heads, w, w).

    Args:
        dim: Number of channels.
        heads: Number of heads.
        dim_heads: Features of a head; None for ``dim // heads``, where heads must divide dim.
        sum_axial_out: Whether to sum the results of both axes; otherwise the rows attend to what the columns gave.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, or ``heads`` does not divide ``dim`` and there is no ``dim_heads``.

    Example:
        >>> AxialAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(
        self,
        dim: int,
        heads: int = 8,
        dim_heads: int | None = None,
        sum_axial_out: bool = True,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(dim=dim, heads=heads)
        if dim_heads is None and dim % heads:
            raise ValueError(f"heads must divide dim={dim} unless dim_heads is given, got {heads}")
        dim_heads = dim // heads if dim_heads is None else dim_heads
        check_positive(dim_heads=dim_heads)
        self.dim, self.sum_axial_out, self.dtype = dim, sum_axial_out, options.get("dtype")
        self.axial_attentions = nnx.List(
            [nnx.Dict(fn=_AxisAttention(dim, heads, dim_heads, rngs=rngs, **options)) for _ in ("height", "width")]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends within the columns and rows of a map (b, h, w, dim)."""
        check_shape("x", x, "b h w c", c=self.dim)
        x = ops.cast(x, self.dtype)
        height = jnp.swapaxes(self._attend(0, jnp.swapaxes(x, 1, 2)), 1, 2)
        if self.sum_axial_out:
            return ops.add(height, self._attend(1, x))
        return self._attend(1, height)

    def _attend(self, axis: int, lines: jax.Array) -> jax.Array:
        """Attends along the third axis of (b, lines, n, dim)."""
        b, count, n, c = lines.shape
        need_weights = ops.is_recording(self)
        out, weights = self.axial_attentions[axis]["fn"](lines.reshape(b * count, n, c), need_weights)
        if weights is not None:
            ops.record(self, ("height_weights", "width_weights")[axis], weights)
        return jnp.reshape(out, lines.shape)


class _AxisAttention(nnx.Module):
    """Multi-head attention among tokens (b, n, dim); only the output's projection has a bias."""

    def __init__(self, dim: int, heads: int, dim_heads: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        self.heads, self.dim_heads, self.precision = heads, dim_heads, options.get("precision")
        self.to_q = Linear(dim, heads * dim_heads, bias=False, rngs=rngs, **options)
        self.to_kv = Linear(dim, 2 * heads * dim_heads, bias=False, rngs=rngs, **options)
        self.to_out = Linear(heads * dim_heads, dim, rngs=rngs, **options)

    def __call__(self, tokens: jax.Array, need_weights: bool) -> tuple[jax.Array, jax.Array | None]:
        query, key, value = (
            one.reshape(*one.shape[:2], self.heads, self.dim_heads)
            for one in (self.to_q(tokens), *jnp.split(self.to_kv(tokens), 2, axis=-1))
        )
        out, weights = ops.dot_product_attention(
            query, key, value, temperature=self.dim_heads**0.5, need_weights=need_weights, precision=self.precision
        )
        return self.to_out(out.reshape(*out.shape[:2], -1)), weights
