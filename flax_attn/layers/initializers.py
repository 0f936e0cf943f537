"""PyTorch's default initialisers."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer


def uniform_fan_in(fan_in: int) -> Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), for weights and biases of linear and convolutional layers.

    PyTorch writes this as ``kaiming_uniform_(a=sqrt(5))`` for the weights.
    """
    bound = 1.0 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        values = jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)
        return values if out_sharding is None else jax.device_put(values, out_sharding)

    return init


def truncated_normal(std: float) -> Initializer:
    """N(0, std^2) cut at -2 and 2, as ``torch.nn.init.trunc_normal_(std=std)``."""

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        values = std * jax.random.truncated_normal(key, -2 / std, 2 / std, shape, dtype)
        return values if out_sharding is None else jax.device_put(values, out_sharding)

    return init


def reset_truncated_normal(layer: nnx.Conv | nnx.Linear, rngs: nnx.Rngs, std: float) -> None:
    """Draws the kernel of a layer from `truncated_normal`."""
    layer.kernel[...] = truncated_normal(std)(rngs.params(), layer.kernel.shape, layer.kernel.dtype)


def reset_kaiming(conv: nnx.Conv, rngs: nnx.Rngs) -> None:
    """Draws the kernel from N(0, 2 / fan_out) and sets the bias to 0; fan_out is output channels times kernel size.

    PyTorch writes this as ``kaiming_normal_(mode="fan_out", nonlinearity="relu")``.
    """
    init = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    conv.kernel[...] = init(rngs.params(), conv.kernel.shape, conv.kernel.dtype)
    if conv.bias is not None:
        conv.bias[...] = jnp.zeros_like(conv.bias[...])
