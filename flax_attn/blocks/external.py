"""External attention: tokens attend to learned memories, which all images share.

Guo, Liu, Mu & Hu, "Beyond self-attention: external attention using two linear layers for visual tasks", TPAMI 2022:
``out = A . M_v``, where A is the softmax of ``x . M_k^T`` over the *tokens*, divided by its sum over the memories. The
memories are the two matrices of S rows. Linear in the number of tokens.

Differs from the authors' code: their map form has convolutions, a norm and a residual around what
`ExternalAttention` is, adds ``eps=1e-9`` to the sum, which is 0 here by default, as in fightingcv's, and starts with
M_v as M_k transposed. Without eps fightingcv's is NaN for a token of which all memories get less than the smallest
float.
`MultiHeadExternalAttention` is their form for transformers.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal

from .. import ops
from .._check import check_positive, check_rate, check_shape
from ..layers import Dropout, Linear
from ..options import Options, check_options

# The authors' sizes of the multi-head form: how much wider it is than the tokens, and its number of memories.
EXPANSION, MEMORIES = 4, 64


class ExternalAttention(nnx.Module):
    """Attention of tokens to a few learned memories instead of to each other, normalised twice (EANet).

    Records how each memory spreads over the tokens, ``weights`` (b, 1, memories, n), before the second normalisation.

    Args:
        d_model: Number of features of the tokens.
        memories: Number of memories, S in the paper.
        eps: Added to the sum over the memories; 1e-9 in the authors' code.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> ExternalAttention(32, memories=8, rngs=nnx.Rngs(0))(jnp.ones((2, 35, 32))).shape
        (2, 35, 32)
    """

    def __init__(
        self, d_model: int, memories: int = 64, eps: float = 0.0, *, rngs: nnx.Rngs, **options: Unpack[Options]
    ) -> None:
        check_options(self, options)
        check_positive(d_model=d_model, memories=memories)
        self.d_model, self.eps = d_model, eps
        self.mk = Linear(d_model, memories, bias=False, rngs=rngs, **options)
        self.mv = Linear(memories, d_model, bias=False, rngs=rngs, **options)
        for layer in (self.mk, self.mv):
            layer.kernel[...] = normal(0.001)(rngs.params(), layer.kernel.shape, layer.kernel.dtype)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens (b, n, d_model) to (b, n, d_model)."""
        check_shape("tokens", tokens, "b n d_model", d_model=self.d_model)
        return self.mv(_normalised(self, self.mk(tokens)[:, :, None], self.eps)[:, :, 0])


class MultiHeadExternalAttention(nnx.Module):
    """External attention on tokens widened by four, whose heads share 64 memories (EANet's transformer).

    Records how each memory spreads over the tokens, ``weights`` (b, 4 * num_heads, 64, n), before the second
    normalisation.

    Args:
        dim: Number of features of the tokens.
        num_heads: A fourth of the number of heads; must divide ``dim``.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, the heads do not divide the features, or a rate is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> MultiHeadExternalAttention(32, num_heads=4, rngs=nnx.Rngs(0))(jnp.ones((2, 35, 32))).shape
        (2, 35, 32)
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(dim=dim, num_heads=num_heads)
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim={dim}, got {num_heads}")
        check_rate("attn_drop", attn_drop)
        check_rate("proj_drop", proj_drop)
        linear = partial(Linear, rngs=rngs, **options)
        self.dim, self.heads, self.head_dim = dim, EXPANSION * num_heads, dim // num_heads
        self.trans_dims = linear(dim, EXPANSION * dim)
        self.linear_0 = linear(self.head_dim, MEMORIES)
        self.linear_1 = linear(MEMORIES, self.head_dim)
        self.attn_drop = Dropout(attn_drop, rngs=rngs)
        self.proj = linear(EXPANSION * dim, dim)
        self.proj_drop = Dropout(proj_drop, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens (b, n, dim) to (b, n, dim)."""
        check_shape("tokens", tokens, "b n dim", dim=self.dim)
        b, n, _ = tokens.shape
        scores = self.linear_0(self.trans_dims(tokens).reshape(b, n, self.heads, self.head_dim))
        weights = self.attn_drop(_normalised(self, scores, eps=1e-9).swapaxes(1, 2)).swapaxes(1, 2)
        return self.proj_drop(self.proj(self.linear_1(weights).reshape(b, n, EXPANSION * self.dim)))


def _normalised(block: nnx.Module, scores: jax.Array, eps: float) -> jax.Array:
    """Scores (b, n, heads, memories): softmax over the tokens, then divided by the sum over the memories."""
    logs = jax.nn.log_softmax(scores.astype(ops.score_dtype(scores.dtype)), axis=1)
    spread = jnp.exp(logs)
    ops.record(block, "weights", jnp.transpose(spread, (0, 2, 3, 1)).astype(scores.dtype))
    if eps:
        return (spread / (eps + jnp.sum(spread, axis=-1, keepdims=True))).astype(scores.dtype)
    # The same quotient, also where all that a token gets is too small for a number.
    return jax.nn.softmax(logs, axis=-1).astype(scores.dtype)
