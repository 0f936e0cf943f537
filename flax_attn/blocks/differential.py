"""Differential attention: the difference of two softmaxes, in which what both see cancels.

Ye et al., "Differential transformer", ICLR 2025: with two queries and two keys per head,
``head = (1 - l0) * RMSNorm((softmax(q1 . k1^T / sqrt(d)) - l * softmax(q2 . k2^T / sqrt(d))) . v)``, where
``l = exp(<lambda_q1, lambda_k1>) - exp(<lambda_q2, lambda_k2>) + l0`` is learned and ``l0 = 0.8 - 0.6 exp(-0.3 depth)``
fixed. ``qk_norm``, ``scale_norm`` and ``dual_lambda``, which is ``l = exp(lambda_a) - exp(lambda_b) + l0``, are timm's.

Differs from timm's ``DiffAttention``: l is not rounded to float32, masks and biases are two arguments, and masked
scores are -1e9 instead of minus infinity. ``depth`` is in no checkpoint.
"""

import math
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal

from .. import ops
from .._check import check_positive, check_rate, check_shape
from ..layers import Dropout, Linear, RMSNorm
from ..options import Options, check_options


class DifferentialAttention(nnx.Module):
    """Multi-head self-attention whose weights are the difference of two softmaxes (Differential Transformer).

    Args:
        dim: Number of features of the tokens.
        num_heads: Number of heads, each with two queries and two keys; 2 * num_heads must divide ``dim``.
        qkv_bias: Whether the projection to queries, keys and values has a bias.
        qk_norm: Whether to apply RMS norm to queries and keys.
        scale_norm: Whether to apply RMS norm to all heads before the last projection.
        proj_bias: Whether the last projection has a bias.
        attn_drop: Dropout rate of each softmax.
        proj_drop: Dropout rate of the output.
        depth: Number of the layer in its network, from 0, which sets the initial weight of the second softmax.
        dual_lambda: Whether that weight is learned as two numbers in place of four vectors.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, the heads do not divide the features, or a rate is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> attention = DifferentialAttention(32, num_heads=2, depth=3, rngs=nnx.Rngs(0))
        >>> attention(jnp.ones((2, 35, 32))).shape
        (2, 35, 32)
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        depth: int = 0,
        dual_lambda: bool = False,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(dim=dim, num_heads=num_heads)
        if dim % (2 * num_heads):
            raise ValueError(f"2 * num_heads must divide dim={dim}, got num_heads={num_heads}")
        check_positive(0, depth=depth)
        check_rate("attn_drop", attn_drop)
        check_rate("proj_drop", proj_drop)
        linear, norm = partial(Linear, rngs=rngs, **options), partial(RMSNorm, rngs=rngs, **options)
        self.dim, self.num_heads, self.head_dim = dim, num_heads, dim // num_heads // 2
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * depth)
        self.dual_lambda = dual_lambda
        self.precision = options.get("precision")
        param_dtype = options.get("param_dtype", jnp.float32)
        if dual_lambda:
            self.lambda_a, self.lambda_b = (nnx.Param(jnp.zeros((), param_dtype)) for _ in range(2))
        else:
            self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (
                nnx.Param(normal(0.1)(rngs.params(), (self.head_dim,), param_dtype)) for _ in range(4)
            )
        self.qkv = linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = nnx.data(norm(self.head_dim, eps=1e-6) if qk_norm else None)
        self.k_norm = nnx.data(norm(self.head_dim, eps=1e-6) if qk_norm else None)
        self.attn_drop = Dropout(attn_drop, rngs=rngs)
        self.sub_norm = norm(2 * self.head_dim, eps=1e-5)
        self.norm = nnx.data(norm(dim, eps=1e-6) if scale_norm else None)
        self.proj = linear(dim, dim, bias=proj_bias)
        self.proj_drop = Dropout(proj_drop, rngs=rngs)

    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None, bias: jax.Array | None = None) -> jax.Array:
        """Computes attention.

        Args:
            tokens: (b, n, dim).
            mask: (b, heads, n, n), where axes of size 1 broadcast; booleans or integers, True or 1 keeps a key and
                False or 0 hides it from a query.
            bias: Floats of the mask's shape, added to the scores of both softmaxes; minus infinity hides a key.

        Returns:
            The output (b, n, dim).
        """
        check_shape("tokens", tokens, "b n dim", dim=self.dim)
        b, n, _ = tokens.shape
        query, key, value = jnp.split(self.qkv(tokens), 3, axis=-1)
        query, key = (x.reshape(b, n, self.num_heads, 2, self.head_dim) for x in (query, key))
        value = value.reshape(b, n, self.num_heads, 2 * self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        attend = partial(
            ops.dot_product_attention,
            value=value,
            temperature=math.sqrt(self.head_dim),
            mask=mask,
            bias=bias,
            need_weights=ops.is_recording(self),
            precision=self.precision,
        )
        first, first_weights = attend(query[..., 0, :], key[..., 0, :], weights_fn=self.attn_drop.draw())
        second, second_weights = attend(query[..., 1, :], key[..., 1, :], weights_fn=self.attn_drop.draw())
        if first_weights is not None and second_weights is not None:
            ops.record(self, "weights", self._difference(first_weights, second_weights))
        heads = self.sub_norm(self._difference(first, second)) * (1 - self.lambda_init)
        heads = heads.reshape(b, n, self.dim)
        if self.norm is not None:
            heads = self.norm(heads)
        return self.proj_drop(self.proj(heads))

    def _difference(self, first: jax.Array, second: jax.Array) -> jax.Array:
        """``first - l * second``, computed in at least float32."""
        if self.dual_lambda:
            logits = [self.lambda_a[...], self.lambda_b[...]]
            wide = [x.astype(ops.score_dtype(x.dtype)) for x in logits]
        else:
            vectors = (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2)
            q1, k1, q2, k2 = (x[...].astype(ops.score_dtype(x.dtype)) for x in vectors)
            wide = [jnp.sum(q1 * k1), jnp.sum(q2 * k2)]
        weight = jnp.exp(wide[0]) - jnp.exp(wide[1]) + self.lambda_init
        dtype = ops.score_dtype(first.dtype)
        return (first.astype(dtype) - weight.astype(dtype) * second.astype(dtype)).astype(first.dtype)
