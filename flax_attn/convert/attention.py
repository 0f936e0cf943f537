"""``torch.nn.MultiheadAttention``, packed and unpacked, as ours of `flax_attn.layers` or ``nnx.MultiHeadAttention``.

PyTorch stores the weights of query, key and value in one array, ``in_proj_weight``, if key and value have as many
features as the query, and otherwise in three, ``q_proj_weight``, ``k_proj_weight`` and ``v_proj_weight``. The biases
are always one array. `to_torch` writes what PyTorch would have; loading also accepts three arrays in place of one.

Flax's layer has an ``attention_fn`` that computes the softmax in float32 even for float64 inputs, an error of 1e-7.
To compare in float64:

    >>> import math, jax.numpy as jnp
    >>> from flax_attn import ops
    >>> def attention_fn(query, key, value, *, mask=None, **_):
    ...     root = math.sqrt(query.shape[-1])
    ...     return ops.dot_product_attention(query, key, value, temperature=root, mask=mask, need_weights=False)[0]
    >>> layer = nnx.MultiHeadAttention(3, 6, attention_fn=attention_fn, decode=False, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 7, 6))).shape
    (2, 7, 6)
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import nnx

from ..layers import MultiheadAttention
from .layers import flat_weight, of_rank
from .rules import Entry, rule


@rule(nnx.MultiHeadAttention)
def _multi_head_attention(layer: nnx.MultiHeadAttention) -> Iterator[Entry]:
    """Takes sizes from the kernels, so that a ``value`` projection of another width (``vdim``) may be assigned."""
    _check(layer)
    projections = [layer.query, layer.key, layer.value]
    separate = [
        flat_weight(f"{letter}_proj_weight", projection) for letter, projection in zip("qkv", projections, strict=True)
    ]
    packed = len({projection.kernel.shape for projection in projections}) == 1
    yield from _projections(separate, [projection.bias for projection in projections], packed=packed)
    yield flat_weight("out_proj.weight", layer.out)
    if layer.out.bias is not None:
        yield Entry("out_proj.bias", layer.out.bias)


@rule(MultiheadAttention)
def _multihead_attention(layer: MultiheadAttention) -> Iterator[Entry]:
    """The projection of the output is a Linear, which has a rule of its own."""
    projections = [layer.q_proj, layer.k_proj, layer.v_proj]
    separate = [
        Entry(f"{letter}_proj_weight", of_rank(2, projection.kernel), np.transpose, np.transpose)
        for letter, projection in zip("qkv", projections, strict=True)
    ]
    packed = layer.kdim == layer.vdim == layer.embed_dim
    yield from _projections(separate, [projection.bias for projection in projections], packed=packed)


def _projections(weights: list[Entry], biases: list[nnx.Param[Any] | None], *, packed: bool) -> Iterator[Entry]:
    """The weights of query, key and value, in one array where PyTorch packs them, and their biases, always in one."""
    if packed:
        yield _stacked("in_proj_weight", weights)
    else:
        yield from weights
    flat = [_flat(bias) for bias in biases if bias is not None]
    if flat:
        yield _stacked("in_proj_bias", flat)


def _flat(bias: nnx.Param[Any]) -> Entry:
    """A part of the array of biases, without a name of its own."""
    shape = bias.shape
    return Entry("", bias, np.ravel, lambda part: part.reshape(shape))


def _stacked(name: str, parts: list[Entry]) -> Entry:
    """One entry of equal parts, concatenated along the first axis."""

    def join(*arrays: np.ndarray) -> np.ndarray:
        return np.concatenate([part.join([array]) for part, array in zip(parts, arrays, strict=True)])

    def split(array: np.ndarray) -> list[np.ndarray]:
        return [part.split(rows)[0] for part, rows in zip(parts, np.split(array, len(parts)), strict=True)]

    variables: tuple[nnx.Variable[Any], ...] = tuple(variable for part in parts for variable in part.variables)
    return Entry(name, variables, join, split, instead=tuple(part for part in parts if part.name))


def _check(layer: nnx.MultiHeadAttention) -> None:
    """Raises ``ValueError`` for settings that PyTorch's layer does not have."""
    kernel = of_rank(3, layer.query.kernel)
    sizes = {
        "in_features": kernel.shape[0],
        "qkv_features": int(np.prod(kernel.shape[1:])),
        "out_features": layer.out.kernel.shape[-1],
    }
    if len(set(sizes.values())) > 1:
        raise ValueError(f"in_features, qkv_features and out_features must be equal, as in PyTorch, got {sizes}")
    if layer.num_kv_heads != layer.num_heads:
        raise ValueError(f"num_kv_heads must be num_heads, {layer.num_heads}, as in PyTorch, got {layer.num_kv_heads}")
    if layer.normalize_qk:
        raise ValueError("normalize_qk must be False, as PyTorch has no such norms, got True")
