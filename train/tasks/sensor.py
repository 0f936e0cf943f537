"""The sensor task: which class is a window of sensor data of? Convolutions and attention along time."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from flax_attn.networks.sensor import SpatialAttentionNeuralNetwork

from ..config import Config
from ..data.folder import Progress
from ..data.labelled import Kind, Labelled, open_labelled
from ..data.synthetic_windows import synthetic_windows
from .classes import cross_entropy, is_largest
from .protocol import Batch

SHORTER = 16  # times: each of the four stages halves the series
WINDOWS = Kind("windows", "n series sensors", centred=True)


@dataclass(frozen=True)
class SensorTask:
    """Windows (series, sensors) of any size, with one label each."""

    def open(self, data: str, progress: Progress | None = None) -> Labelled:
        """Opens windows."""
        return open_labelled(data, WINDOWS, synthetic_windows)

    def build(self, config: Config, source: Labelled) -> SpatialAttentionNeuralNetwork:
        """The network for so many sensors and classes.

        Raises:
            ValueError: batches that give BatchNorm a single value in training.
        """
        _, series, sensors = source.records.shape
        if config.batch_size * sensors * math.ceil(series / SHORTER) < 2:
            raise ValueError(
                f"--batch-size must be at least 2 for windows of {series}x{sensors}, got {config.batch_size}"
            )
        model = SpatialAttentionNeuralNetwork(
            source.records.shape, source.classes, dtype=jnp.dtype(config.dtype), rngs=nnx.Rngs(config.seed)
        )
        model.train()
        return model

    def draw(self, inputs: jax.Array, labels: jax.Array, indices: jax.Array, key: jax.Array) -> Batch:
        """Takes the windows as they are, as maps of one channel (b, series, sensors, 1)."""
        return Batch(inputs[..., None], labels)

    def answer(self, network: SpatialAttentionNeuralNetwork, x: jax.Array) -> jax.Array:
        """The logits (b, classes)."""
        logits: jax.Array = network(x)
        return logits

    def error(self, answer: jax.Array, y: jax.Array, where: jax.Array | None = None) -> jax.Array:
        """The cross-entropy."""
        return cross_entropy(answer, y, where)

    def is_right(self, answer: jax.Array, y: jax.Array) -> jax.Array:
        """Whether the label has the largest logit."""
        return is_largest(answer, y)
