"""Attention with 1x1 convolutions, and a multi-head block around it with a mixing layer.

The third network of Javier Fernandez' tutorial "Attention in computer vision". Per head, with 1x1 convolutions for
query, key and value: ``head = softmax_keys(q . k / sqrt(key_size)) . v``; then, with LN over channels,
``z1 = concat(heads)``, ``z2 = LN(proj_down(z1) + context)``, ``out = LN(mixing_layer2(relu(mixing_layer1(z2))) + z2)``.

Differs from the tutorial's code: no (b, key_size, n, n) array is built, all heads share one matrix product, the weights
are (b, heads, n_query, n_key), and maps need not be square. As in the tutorial, the residual adds the *context*, so
query and context must have the same length and number of channels.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

from .. import ops
from .._check import check_positive, check_shape
from ..layers import Conv, LayerNorm
from ..options import Options, check_options


class ConvAttention(nnx.Module):
    """Single-head dot-product attention between two maps or sequences, projected by 1x1 convolutions.

    Args:
        mem_in: Number of context channels.
        query_in: Number of query channels.
        key_size: Number of channels of the projected queries and keys.
        output_size: Number of channels of the values and the output.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> attention = ConvAttention(3, 5, 8, 13, rngs=nnx.Rngs(0))
        >>> out, weights = attention(jnp.ones((2, 4, 7, 5)), jnp.ones((2, 6, 3)), need_weights=True)
        >>> out.shape, weights.shape
        ((2, 4, 7, 13), (2, 1, 28, 6))
    """

    def __init__(
        self,
        mem_in: int = 32,
        query_in: int = 32,
        key_size: int = 32,
        output_size: int = 32,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(mem_in=mem_in, query_in=query_in, key_size=key_size, output_size=output_size)
        conv = partial(Conv, kernel_size=(1,), rngs=rngs, **options)
        self.mem_in, self.query_in, self.key_size = mem_in, query_in, key_size
        self.key = conv(mem_in, key_size)
        self.value = conv(mem_in, output_size)
        self.query = conv(query_in, key_size)
        self.dtype = options.get("dtype")
        self.precision = options.get("precision")

    def __call__(
        self, query: jax.Array, context: jax.Array, *, need_weights: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Attends from each position of the query to all positions of the context.

        Args:
            query: Map (b, h, w, query_in) or sequence (b, n_query, query_in).
            context: Map (b, h, w, mem_in) or sequence (b, n_key, mem_in) of any size.
            need_weights: Whether to return the attention weights.

        Returns:
            The output in the query's shape with output_size channels, and the weights (b, 1, n_query, n_key) or None.
        """
        tokens = as_sequence("query", query, "query_in", self.query_in)
        context = as_sequence("context", context, "mem_in", self.mem_in, batch=query.shape[0])
        need = need_weights or ops.is_recording(self)
        out, weights = attend_heads([self], tokens, context, need_weights=need)
        if weights is not None:
            ops.record(self, "weights", weights)
        return out.reshape(*query.shape[:-1], -1), weights if need_weights else None


class ConvMultiHeadAttention(nnx.Module):
    """Multi-head attention with 1x1 convolutions, then a mixing layer, each with a residual and layer norm.

    Args:
        mem_in: Number of context channels.
        query_in: Number of query and output channels; must equal ``mem_in``, since the residual adds the context.
        key_size: Number of query and key channels per head.
        output_size: Number of value channels per head.
        num_heads: Number of heads.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, or ``mem_in`` and ``query_in`` differ.

    Example:
        >>> attention = ConvMultiHeadAttention(6, 6, num_heads=3, rngs=nnx.Rngs(0))
        >>> x = jnp.ones((2, 4, 7, 6))
        >>> out, weights = attention(x, x, need_weights=True)
        >>> out.shape, weights.shape
        ((2, 4, 7, 6), (2, 3, 28, 28))
    """

    def __init__(
        self,
        mem_in: int = 32,
        query_in: int = 32,
        key_size: int = 32,
        output_size: int = 32,
        num_heads: int = 4,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(num_heads=num_heads)
        if mem_in != query_in:
            raise ValueError(f"mem_in must equal query_in={query_in}, the residual adds the context, got {mem_in}")
        head = partial(ConvAttention, rngs=rngs, **options)
        conv = partial(Conv, kernel_size=(1,), rngs=rngs, **options)
        norm = partial(LayerNorm, rngs=rngs, **options)
        self.query_in = query_in
        self.layers = nnx.List([head(mem_in, query_in, key_size, output_size) for _ in range(num_heads)])
        self.proj_down = conv(num_heads * output_size, query_in)
        self.mixing_layer1 = conv(query_in, query_in)
        self.mixing_layer2 = conv(query_in, query_in)
        self.norm1 = norm(query_in)
        self.norm2 = norm(query_in)

    def __call__(
        self, query: jax.Array, context: jax.Array, *, need_weights: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Attends from each position of the query to all positions of the context, then mixes channels.

        Args:
            query: Map (b, h, w, query_in) or sequence (b, n, query_in).
            context: Map or sequence with as many positions and channels as the query.
            need_weights: Whether to return the attention weights.

        Returns:
            The output in the query's shape, and the weights (b, num_heads, n, n) or None. `attention_maps` also gives
            ``z1`` (b, n, num_heads * output_size), the concatenated heads.
        """
        tokens = as_sequence("query", query, "query_in", self.query_in)
        b, n, _ = tokens.shape
        context = as_sequence("context", context, "mem_in", self.query_in, batch=b, length=n)
        need = need_weights or ops.is_recording(self)
        z1, weights = attend_heads(self.layers, tokens, context, need_weights=need)
        if weights is not None:
            ops.record(self, "weights", weights)
        ops.record(self, "z1", z1)
        z2 = self.proj_down(z1)
        z2 = self.norm1(z2 + context.astype(z2.dtype))
        out = self.norm2(self.mixing_layer2(ops.relu(self.mixing_layer1(z2))) + z2)
        return out.reshape(query.shape), weights if need_weights else None


def as_sequence(
    argument: str,
    x: jax.Array,
    channels_name: str,
    channels: int,
    batch: int | None = None,
    length: int | None = None,
) -> jax.Array:
    """Checks a map (b, h, w, c) or sequence (b, n, c) and returns it as a sequence."""
    axes = len(getattr(x, "shape", (0,) * 3))
    if axes not in (3, 4):
        raise ValueError(f"{argument} must be a sequence (b, n, c) or a map (b, h, w, c), got {x.shape}")
    layout = "b h w" if axes == 4 else "b n"
    check_shape(argument, x, f"{layout} {channels_name}", b=batch, **{channels_name: channels})
    sequence = x.reshape(x.shape[0], -1, channels)
    if length is not None and sequence.shape[1] != length:
        raise ValueError(f"{argument} must have as many positions as the query, {length}, got {sequence.shape[1]}")
    return sequence


def attend_heads(
    heads: list[ConvAttention] | nnx.List[ConvAttention],
    query: jax.Array,
    context: jax.Array,
    *,
    need_weights: bool,
) -> tuple[jax.Array, jax.Array | None]:
    """Runs all heads on sequences, with one matrix product each for the queries, keys and values of all heads.

    Returns:
        The concatenated head outputs (b, n_query, heads * output_size), and the weights (b, heads, n_query, n_key) or
        None.
    """
    q = _project([head.query for head in heads], query)
    k = _project([head.key for head in heads], context)
    v = _project([head.value for head in heads], context)
    out, weights = ops.dot_product_attention(
        q,
        k,
        v,
        temperature=heads[0].key_size ** 0.5,
        need_weights=need_weights,
        precision=heads[0].precision,
    )
    return out.reshape(*query.shape[:2], -1), weights


def _project(convs: list[Conv], x: jax.Array) -> jax.Array:
    kernel = jnp.concatenate([conv.kernel[...] for conv in convs], axis=-1)[0]
    bias = jnp.concatenate([conv.bias[...] for conv in convs if conv.bias is not None])
    x, kernel, bias = promote_dtype((x, kernel, bias), dtype=convs[0].dtype)
    y = ops.add(jnp.matmul(x, kernel, precision=convs[0].precision), bias)
    return y.reshape(*x.shape[:2], len(convs), -1)
