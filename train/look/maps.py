"""From what a network records while it judges images to maps (b, h, w) over the places of its attended map.

A block takes part by recording its token weights (b, heads, n_query, n_key) under the name ``weights``, or its gate,
which broadcasts against (b, h, w, c), under ``gate``. Nothing else is known of it.
"""

import jax
import jax.numpy as jnp

from flax_attn import ops


def kind_of(path: str) -> str:
    """The name under which something was recorded.

    Example:
        >>> kind_of("attn1.attention.weights"), kind_of("attn1.gate.1"), kind_of("gate")
        ('weights', 'gate', 'gate')
    """
    *before, last = path.split(".")
    return before[-1] if before and last.isdecimal() else last


def detector_maps(
    recorded: dict[str, jax.Array], size: tuple[int, int, int, int], token_order: str = "pixels"
) -> dict[str, jax.Array]:
    """One map for everything recorded that has places.

    Token weights: the attention that a place receives, averaged over queries and heads; 1 is the average place's. A
    gate: its value, averaged over channels. What has no value per place gives no map: gates of channels, weights over
    other tokens than the map's, other records.

    Args:
        recorded: by path.
        size: of the attended map, (b, h, w, c).
        token_order: what the tokens are; see `spread`.

    Returns:
        Maps (b, h, w) by path.

    Example:
        >>> gates = {"a.gate": jnp.ones((2, 1, 1, 3)), "b.gate": jnp.ones((2, 5, 7, 1))}
        >>> {path: values.shape for path, values in detector_maps(gates, (2, 5, 7, 3)).items()}
        {'b.gate': (2, 5, 7)}
    """
    maps = {}
    for path, array in recorded.items():
        if is_over_places(path, array, size):
            maps[path] = received(array, size, token_order)
        elif is_spatial_gate(path, array, size):
            maps[path] = jnp.broadcast_to(jnp.mean(array, axis=-1), size[:3])
    return maps


def is_over_places(path: str, array: jax.Array, size: tuple[int, int, int, int]) -> bool:
    """Whether these are token weights whose keys are all of the map's tokens."""
    b, h, w, _ = size
    return kind_of(path) == "weights" and array.ndim == 4 and (array.shape[0], array.shape[3]) == (b, h * w)


def is_spatial_gate(path: str, array: jax.Array, size: tuple[int, int, int, int]) -> bool:
    """Whether this is a gate over the map that is not the same at all places."""
    if kind_of(path) != "gate" or array.ndim != 4 or array.shape[1:3] == (1, 1):
        return False
    return all(got in (1, want) for got, want in zip(array.shape, size, strict=True))


def received(weights: jax.Array, size: tuple[int, int, int, int], token_order: str) -> jax.Array:
    """The attention (b, h, w) that places receive on average over heads and queries, times the number of places."""
    return spread(jnp.mean(weights, axis=(1, 2)) * weights.shape[-1], size, token_order)


def spread(values: jax.Array, size: tuple[int, int, int, int], token_order: str) -> jax.Array:
    """Values of tokens (b, h * w) as a map (b, h, w).

    In the order ``pixels`` a token is a place. In the order ``article`` it holds neighbouring values of one channel, so
    a place has its values in c tokens, one per channel, and gets their mean: exact, and as coarse as those tokens are,
    c places in reading order (a row and a third of 24 by 24 with 32 channels).
    """
    b, h, w, c = size
    every = jnp.broadcast_to(values[..., None], (b, h * w, c))
    return jnp.mean(ops.tokens_to_map(every, h, w, token_order), axis=-1)


def gathered(places: jax.Array, size: tuple[int, int, int, int], token_order: str) -> jax.Array:
    """The share (b, h * w) of some places' values that every token holds: the way back from `spread`.

    Args:
        places: (b, h, w), how much each place counts.
        size: of the attended map, (b, h, w, c).
        token_order: what the tokens are.
    """
    here = jnp.broadcast_to(places[..., None] / size[-1], size)
    return jnp.sum(ops.map_to_tokens(here, token_order), axis=-1)
