"""From what a network records to maps (b, h, w) over the places of its attended map.

Any block takes part that records its token weights (b, heads, n_query, n_key) under the name ``weights``, or its gate,
which broadcasts against (b, h, w, c), under ``gate``. What stands before that tells several of a kind apart, as in
``height_gate`` and ``width_gate``.
"""

import jax
import jax.numpy as jnp

from flax_attn import ops

Size = tuple[int, ...]  # of the attended map, (b, h, w, c)


def kind_of(path: str) -> str:
    """What was recorded: ``gate`` for ``attn1.gate``, ``attn1.gate.1`` and ``attn1.height_gate`` alike."""
    *before, last = path.split(".")
    name = before[-1] if before and last.isdecimal() else last
    return name.rpartition("_")[2]


def detector_maps(recorded: dict[str, jax.Array], size: Size, token_order: str = "pixels") -> dict[str, jax.Array]:
    """The maps (b, h, w) of all records with a value per place, by path.

    Token weights become the attention that each place receives, averaged over queries and heads, relative to uniform
    attention; a gate becomes its mean over channels.
    """
    b, h, w, _ = size
    maps = {}
    for path, array in recorded.items():
        kind, shape = kind_of(path), array.shape
        fits = len(shape) == 4 and all(got in (1, want) for got, want in zip(shape, size, strict=True))
        if kind == "weights" and len(shape) == 4 and (shape[0], shape[3]) == (b, h * w):
            maps[path] = spread(jnp.mean(array, axis=(1, 2)) * shape[3], size, token_order)
        elif kind == "gate" and fits and shape[1:3] != (1, 1):
            maps[path] = jnp.broadcast_to(jnp.mean(array, axis=-1), (b, h, w))
    return maps


def spread(values: jax.Array, size: Size, token_order: str) -> jax.Array:
    """Values of tokens (b, h * w) as a map (b, h, w); a place in several tokens (``article``) gets their mean."""
    b, h, w, c = size
    every = jnp.broadcast_to(values[..., None], (b, h * w, c))
    return jnp.mean(ops.tokens_to_map(every, h, w, token_order), axis=-1)


def gathered(places: jax.Array, size: Size, token_order: str) -> jax.Array:
    """The weights of places (b, h, w) as weights of tokens (b, h * w): the transpose of `spread`."""
    here = jnp.broadcast_to(places[..., None] / size[-1], size)
    return jnp.sum(ops.map_to_tokens(here, token_order), axis=-1)
