"""From what a network records to maps (b, h, w) over the places of its attended map.

Any block takes part that records its token weights (b, heads, n_query, n_key) under the name ``weights``, or its gate,
which broadcasts against (b, h, w, c), under ``gate``.
"""

import jax
import jax.numpy as jnp

from flax_attn import ops

Size = tuple[int, ...]  # of the attended map, (b, h, w, c)


def kind_of(path: str) -> str:
    """The name under which something was recorded.

    Example:
        >>> kind_of("attn1.attention.weights"), kind_of("attn1.gate.1"), kind_of("gate")
        ('weights', 'gate', 'gate')
    """
    *before, last = path.split(".")
    return before[-1] if before and last.isdecimal() else last


def detector_maps(recorded: dict[str, jax.Array], size: Size, token_order: str = "pixels") -> dict[str, jax.Array]:
    """The maps (b, h, w) of all records with a value per place, by path.

    Token weights become the attention that each place receives, averaged over queries and heads, relative to uniform
    attention; a gate becomes its mean over channels.

    Example:
        >>> gates = {"a.gate": jnp.ones((2, 1, 1, 3)), "b.gate": jnp.ones((2, 5, 7, 1))}
        >>> {path: values.shape for path, values in detector_maps(gates, (2, 5, 7, 3)).items()}
        {'b.gate': (2, 5, 7)}
    """
    maps = {}
    for path, array in recorded.items():
        if is_over_places(path, array, size):
            maps[path] = spread(jnp.mean(array, axis=(1, 2)) * array.shape[-1], size, token_order)
        elif is_spatial_gate(path, array, size):
            maps[path] = jnp.broadcast_to(jnp.mean(array, axis=-1), size[:3])
    return maps


def is_over_places(path: str, array: jax.Array, size: Size) -> bool:
    """Whether these are token weights whose keys are all tokens of the map."""
    b, h, w, _ = size
    return kind_of(path) == "weights" and array.ndim == 4 and (array.shape[0], array.shape[3]) == (b, h * w)


def is_spatial_gate(path: str, array: jax.Array, size: Size) -> bool:
    """Whether this is a gate that varies over the map."""
    if kind_of(path) != "gate" or array.ndim != 4 or array.shape[1:3] == (1, 1):
        return False
    return all(got in (1, want) for got, want in zip(array.shape, size, strict=True))


def spread(values: jax.Array, size: Size, token_order: str) -> jax.Array:
    """Values of tokens (b, h * w) as a map (b, h, w); a place in several tokens (``article``) gets their mean."""
    b, h, w, c = size
    every = jnp.broadcast_to(values[..., None], (b, h * w, c))
    return jnp.mean(ops.tokens_to_map(every, h, w, token_order), axis=-1)


def gathered(places: jax.Array, size: Size, token_order: str) -> jax.Array:
    """The weights of places (b, h, w) as weights of tokens (b, h * w): the transpose of `spread`."""
    here = jnp.broadcast_to(places[..., None] / size[-1], size)
    return jnp.sum(ops.map_to_tokens(here, token_order), axis=-1)


def class_activation(attended: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """The contribution of every place to the logit; its mean over the map is the logit.

    Example:
        >>> class_activation(jnp.array([[[[1.0, 2.0], [3.0, 4.0]]]]), jnp.array([10.0, 1.0]), 0.5).tolist()
        [[[12.5, 34.5]]]
    """
    return jnp.sum(attended * weight, axis=-1) + bias  # not a matrix product: some devices round those
