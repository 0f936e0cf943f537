"""The networks of the patch task by name: ``cnn``, or one with a block of `flax_attn.list_blocks`."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

import flax_attn
from flax_attn.networks.patch import CHANNELS, PatchNetwork, create_position


def build_network(config: Any, height: int, width: int) -> PatchNetwork:
    """Builds the network that ``config`` names, in training mode.

    Args:
        config: read are network, token_order, position, seed and dtype.
        height: rows of the images.
        width: columns of the images.

    Example:
        >>> from train.config import PatchConfig
        >>> type(build_network(PatchConfig(network="cbam"), 96, 96).attn1).__name__
        'CBAM'
    """
    size = (height // 4, width // 4)  # of the attended map, behind two poolings
    rngs, dtype = nnx.Rngs(config.seed), jnp.dtype(config.dtype)
    if config.network == "cnn":
        return PatchNetwork(dtype=dtype, rngs=rngs)
    # In this order: a seed's initial weights depend on it.
    position = create_position(None if config.position == "none" else config.position, *size, dtype=dtype, rngs=rngs)
    block = flax_attn.create_block(config.network, CHANNELS, size=size, dtype=dtype, rngs=rngs)
    network = PatchNetwork(block, config.token_order, position, dtype=dtype, rngs=rngs)
    network.train()
    return network
