"""Everything that a network shows while it judges images, in one pass."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flax_attn.networks.patch import PatchNetwork

from .witness import witness

# 512 MiB. Token weights grow with the fourth power of an image's sides: those of one image of 256x256 in 4 heads take
# 256 MiB, where training never has more than a block of them. While they are computed they stand in memory twice.
MOST_BYTES = 2**29


class Observed(NamedTuple):
    """What a network made of a batch, in float32.

    Attributes:
        p: (b,), the probability of a patch.
        attended: (b, h, w, c), the attended map.
        activation: (b, h, w), the class activation map.
        recorded: all that blocks recorded, by path; see `flax_attn.attention_maps`.
    """

    p: jax.Array
    attended: jax.Array
    activation: jax.Array
    recorded: dict[str, jax.Array]


def observe(network: PatchNetwork, x: jax.Array) -> Observed:
    """Lets ``network`` judge images x (b, h, w, 3) in eval mode and keeps everything; the network stays as it is."""
    graph, state = nnx.split(network)
    return _observe(graph, state, x)


def at_once(network: PatchNetwork, height: int, width: int, most: int) -> int:
    """How many images of a size, at least 1, ``network`` can be observed with before what it records takes too much.

    Args:
        network: any; nothing is computed.
        height: rows of the images.
        width: columns of the images.
        most: how many are wanted.
    """
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    recorded = jax.eval_shape(_observe, *nnx.split(network), image).recorded
    each = sum(array.size * array.dtype.itemsize for array in recorded.values())
    return max(1, min(most, MOST_BYTES // max(each, 1)))


@jax.jit
def _observe(graph: nnx.GraphDef[PatchNetwork], state: nnx.State, x: jax.Array) -> Observed:
    return observe_inside(nnx.merge(graph, state, copy=True), x)


def observe_inside(network: PatchNetwork, x: jax.Array) -> Observed:
    """`observe` for use inside a compiled function; puts ``network`` in eval mode."""
    results, recorded = witness(network, _judge, x)
    activation = class_activation(results["attended"], network.final.kernel[:, 0], network.final.bias[0])
    return Observed(results["p"], results["attended"], activation, recorded)


def _judge(network: PatchNetwork, x: jax.Array) -> dict[str, jax.Array]:
    p, attended = network(x)
    return {"p": p, "attended": attended}


def class_activation(attended: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """What every place adds to the logit: ``attended . weight + bias``.

    The classifier is linear after the mean over the map, so the map's mean is the logit itself.

    Args:
        attended: (b, h, w, c).
        weight: (c,), of the classifier.
        bias: a scalar, of the classifier.

    Returns:
        (b, h, w).

    Example:
        >>> class_activation(jnp.array([[[[1.0, 2.0], [3.0, 4.0]]]]), jnp.array([10.0, 1.0]), 0.5).tolist()
        [[[12.5, 34.5]]]
    """
    return jnp.sum(attended * weight, axis=-1) + bias  # no matrix product: those are rounded on some devices
