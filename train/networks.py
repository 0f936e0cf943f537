"""The networks of the patch task by name, built from the options of the command line."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from flax_attn.networks import patch


class Network(NamedTuple):
    """A constructor and the names of the options that it reads."""

    build: Callable[..., patch.PatchNetwork]
    options: tuple[str, ...] = ()


def _multi_head(token_order: str, position: str, map_size: tuple[int, int], **keywords: Any) -> patch.PatchNetwork:
    height, width = map_size
    return patch.NetMultiHeadAttention(token_order, None if position == "none" else position, height, width, **keywords)


NETWORKS = {
    "cnn": Network(patch.Net),
    "multi_head": Network(_multi_head, ("token_order", "position", "map_size")),
    "conv_multi_head": Network(patch.NetConvMultiHeadAttention),
    "cbam": Network(patch.NetCBAM),
    "cbam_spatial": Network(patch.NetCBAMSpatial),
    "pointwise_spatial": Network(patch.NetPointwiseSpatialAttention),
    "channel_attention": Network(patch.NetChannelAttention),
}


def build_network(config: Any, height: int, width: int) -> patch.PatchNetwork:
    """Builds the network that ``config`` names, in training mode.

    Args:
        config: read are network, seed, dtype and the network's own options.
        height: rows of the images.
        width: columns of the images.

    Example:
        >>> from train.config import PatchConfig
        >>> type(build_network(PatchConfig(network="cbam"), 96, 96)).__name__
        'NetCBAM'
    """
    network = NETWORKS[config.network]
    # Two poolings lie before the attended map; only a learned position encoding needs its size.
    values = {**vars(config), "map_size": (height // 4, width // 4)}
    options = {name: values[name] for name in network.options}
    return network.build(**options, dtype=jnp.dtype(config.dtype), rngs=nnx.Rngs(config.seed))
