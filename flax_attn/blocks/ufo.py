"""UFO-ViT's attention: norms in place of the softmax, so that keys and values are joined before they meet the queries.

Song, "UFO-ViT: high performance linear vision transformer without softmax", 2021: ``XN(q) XN(k^T v)`` per head with
``XN(a) = gamma a / |a|`` over the last axis. Time and memory grow with the number of tokens, not with its square, and
no weight belongs to a pair of tokens, so that nothing is recorded.

Differs from the softmax's attention: no scale and no mask, and a query or a context of zeros is divided by its norm, as
in ``fightingcv_attention``, the only published code: the result is NaN. That code takes a dropout but applies none.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape
from ..layers import Linear
from ..options import Options, check_options


class UFOAttention(nnx.Module):
    """Attention over tokens with norms in place of a softmax, in linear time and memory (UFO-ViT).

    Args:
        d_model: Number of features of the tokens.
        d_k: Number of features of a head's queries and keys.
        d_v: Number of features of a head's values.
        h: Number of heads.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> tokens = jax.random.normal(jax.random.key(0), (2, 35, 8))
        >>> UFOAttention(8, 4, 4, 2, rngs=nnx.Rngs(0))(tokens, tokens, tokens)[0].shape
        (2, 35, 8)
    """

    def __init__(self, d_model: int, d_k: int, d_v: int, h: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(d_model=d_model, d_k=d_k, d_v=d_v, h=h)
        linear = partial(_small_linear, rngs=rngs, **options)
        self.d_model, self.h = d_model, h
        self.dtype, self.precision = options.get("dtype"), options.get("precision")
        self.fc_q = linear(d_model, h * d_k)
        self.fc_k = linear(d_model, h * d_k)
        self.fc_v = linear(d_model, h * d_v)
        self.fc_o = linear(h * d_v, d_model)
        self.gamma = nnx.Param(jax.random.normal(rngs.params(), (h,), options.get("param_dtype", jnp.float32)))

    def __call__(self, query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, None]:
        """Computes attention.

        Args:
            query: (b, n_query, d_model).
            key: (b, n_key, d_model).
            value: (b, n_key, d_model).

        Returns:
            The output (b, n_query, d_model), and None, as there are no weights.
        """
        check_shape("query", query, "b n_query d_model", d_model=self.d_model)
        check_shape("key", key, "b n_key d_model", b=query.shape[0], d_model=self.d_model)
        check_shape("value", value, "b n_key d_model", b=key.shape[0], n_key=key.shape[1], d_model=self.d_model)
        q, k, v = self._split(self.fc_q(query)), self._split(self.fc_k(key)), self._split(self.fc_v(value))
        context = jnp.einsum("bnhk,bnhv->bkhv", k, v, precision=self.precision)
        attended = jnp.einsum(
            "bnhk,bkhv->bnhv", self._normalised(q), self._normalised(context), precision=self.precision
        )
        return self.fc_o(jnp.reshape(attended, (*query.shape[:2], -1))), None

    def _split(self, x: jax.Array) -> jax.Array:
        return jnp.reshape(x, (*x.shape[:2], self.h, -1))

    def _normalised(self, x: jax.Array) -> jax.Array:
        """Divides (b, ..., h, d) by its norm over d and multiplies it by the head's gamma."""
        wide = x.astype(ops.score_dtype(x.dtype))
        normed = wide / jnp.sqrt(jnp.sum(jnp.square(wide), axis=-1, keepdims=True))
        return ops.multiply(normed, ops.cast(self.gamma[...], self.dtype)[:, None]).astype(x.dtype)


def _small_linear(in_features: int, out_features: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> Linear:
    """A linear layer with weights from N(0, 0.001) and biases of 0, as the published code starts from."""
    layer = Linear(in_features, out_features, rngs=rngs, **options)
    dtype = layer.kernel.dtype
    layer.kernel = nnx.Param(0.001 * jax.random.normal(rngs.params(), (in_features, out_features), dtype))
    layer.bias = nnx.Param(jnp.zeros(out_features, dtype))
    return layer
