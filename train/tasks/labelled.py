"""The tasks that tell classes apart: channel, of arrays behind channel attention, and sensor, of windows in time."""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from flax_attn.networks.channel import ChannelAttentionClassifier
from flax_attn.networks.sensor import SpatialAttentionNeuralNetwork

from ..data.labelled import Kind, Labelled, open_labelled
from ..data.synthetic_labelled import synthetic_arrays, synthetic_windows

# Not centred: the classifier sees the mean of what the gate lets through of a channel, which must not be zero.
ARRAYS = Kind("arrays", "n h w c", centred=False)
WINDOWS = Kind("windows", "n series sensors", centred=True)
RATIO = 16  # the tutorial's
SHORTER = 16  # times: each of the sensor network's four stages halves the series


def cross_entropy(logits: Array, y: Array, where: Array | None = None) -> Array:
    """The mean of ``-log softmax(logits)[y]``, in at least float32.

    Example:
        >>> float(cross_entropy(jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0]])), jnp.array([1, 0]))).__round__(4)
        0.4904
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y), where=where)


def is_largest(logits: Array, y: Array) -> Array:
    """Whether the label has the largest logit, (b,); of equal ones the first counts."""
    return jnp.argmax(logits, axis=-1) == y


@dataclass(frozen=True)
class ChannelTask:
    """Arrays (h, w, c) of any size, with one label each."""

    loss = error = staticmethod(cross_entropy)
    is_right = staticmethod(is_largest)

    def open(self, data: str) -> Labelled:
        return open_labelled(data, ARRAYS, synthetic_arrays)

    def build(self, config: Any, source: Any) -> ChannelAttentionClassifier:
        channels = source.records.shape[-1]
        ratio = min(RATIO, channels) if config.ratio is None else config.ratio
        return ChannelAttentionClassifier(
            channels, source.classes, ratio, dtype=jnp.dtype(config.dtype), rngs=nnx.Rngs(config.seed)
        )

    def draw(self, inputs: Array, labels: Any, indices: Array, key: Array, *, training: bool) -> tuple[Array, Array]:
        return inputs, labels

    def answer(self, network: Any, x: Array) -> Array:
        logits: Array = network(x)[0]
        return logits


@dataclass(frozen=True)
class SensorTask:
    """Windows (series, sensors) of any size, with one label each."""

    loss = error = staticmethod(cross_entropy)
    is_right = staticmethod(is_largest)

    def open(self, data: str) -> Labelled:
        return open_labelled(data, WINDOWS, synthetic_windows)

    def build(self, config: Any, source: Any) -> SpatialAttentionNeuralNetwork:
        """The network for this number of sensors and classes; BatchNorm needs two values in training."""
        _, series, sensors = source.records.shape
        if config.batch_size * sensors * math.ceil(series / SHORTER) < 2:
            least = f"at least 2 for windows of {series}x{sensors}"
            raise ValueError(f"--batch-size must be {least}, got {config.batch_size}")
        return SpatialAttentionNeuralNetwork(
            source.records.shape, source.classes, dtype=jnp.dtype(config.dtype), rngs=nnx.Rngs(config.seed)
        )

    def draw(self, inputs: Array, labels: Any, indices: Array, key: Array, *, training: bool) -> tuple[Array, Array]:
        """Takes the windows as they are, as maps of one channel (b, series, sensors, 1)."""
        return inputs[..., None], labels

    def answer(self, network: Any, x: Array) -> Array:
        logits: Array = network(x)
        return logits
