"""Criss-cross attention: each place of a map attends to its row and its column.

Huang, Wang, Huang, Huang, Wei & Liu, "CCNet: criss-cross attention for semantic segmentation", ICCV 2019:
``x_n + gamma * sum_m softmax_m(q_n . k_m) v_m``, one softmax over the h + w - 1 places of the column and the row,
without a scale. The place itself counts once: the authors' code masks it among those of the column.

Differs from the network, which calls the block twice with the same weights, so that each place reaches every other.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import Conv
from ..options import Options, check_options


class CrissCrossAttention(nnx.Module):
    """Adds to each place of a map a weighted mean over its row and its column (criss-cross attention).

    It starts as the identity, as gamma is 0. `attention_maps` gives weights (b, 1, h * w, h + w): those of the column,
    where that of the place itself is 0, and those of the row.

    Args:
        in_dim: Number of channels, at least 8; queries and keys have an eighth of them.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``in_dim`` is below 8.

    Example:
        >>> CrissCrossAttention(32, rngs=nnx.Rngs(0))(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(self, in_dim: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(8, in_dim=in_dim)
        self.in_dim = in_dim
        self.dtype, self.precision = options.get("dtype"), options.get("precision")
        self.query_conv = Conv(in_dim, in_dim // 8, 1, rngs=rngs, **options)
        self.key_conv = Conv(in_dim, in_dim // 8, 1, rngs=rngs, **options)
        self.value_conv = Conv(in_dim, in_dim, 1, rngs=rngs, **options)
        self.gamma = nnx.Param(jnp.zeros(1, options.get("param_dtype", jnp.float32)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends within the rows and columns of a map (b, h, w, in_dim)."""
        check_shape("x", x, "b h w c", c=self.in_dim)
        x = ops.cast(x, self.dtype)
        value = self.value_conv(x)
        weights = self._weights(self.query_conv(x), self.key_conv(x)).astype(value.dtype)
        b, height, width, _ = x.shape
        ops.record(self, "weights", weights.reshape(b, 1, height * width, height + width))
        column = jnp.einsum("bhwg,bgwc->bhwc", weights[..., :height], value, precision=self.precision)
        row = jnp.einsum("bhwv,bhvc->bhwc", weights[..., height:], value, precision=self.precision)
        return ops.cast(ops.add(x, ops.multiply(ops.add(column, row), self.gamma[...])), self.dtype)

    def _weights(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """The weights (b, h, w, h + w) of the column's places, then of the row's."""
        wide = ops.score_dtype(query.dtype)
        column, row = (
            jnp.einsum(product, query, key, precision=self.precision, preferred_element_type=wide)
            for product in ("bhwd,bgwd->bhwg", "bhwd,bhvd->bhwv")
        )
        places = jnp.arange(query.shape[1])
        itself = (places[:, None] == places[None])[None, :, None]
        return jax.nn.softmax(jnp.concatenate([jnp.where(itself, -jnp.inf, column), row], axis=-1), axis=-1)
