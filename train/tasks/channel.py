"""The channel task: which class is an array of? Channel attention, the mean over the map, a linear classifier."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from flax_attn.networks.channel import ChannelAttentionClassifier

from ..config import Config
from ..data.folder import Progress
from ..data.labelled import Kind, Labelled, open_labelled
from ..data.synthetic_arrays import synthetic_arrays
from .classes import cross_entropy, is_largest
from .protocol import Batch

# Not centred: what the gate lets through is the mean of a channel, and there has to be one.
ARRAYS = Kind("arrays", "n h w c", centred=False)
RATIO = 16  # the tutorial's


@dataclass(frozen=True)
class ChannelTask:
    """Arrays (h, w, c) of any size, with one label each."""

    def open(self, data: str, progress: Progress | None = None) -> Labelled:
        """Opens arrays."""
        return open_labelled(data, ARRAYS, synthetic_arrays)

    def build(self, config: Config, source: Labelled) -> ChannelAttentionClassifier:
        """The classifier behind its gate.

        Raises:
            ValueError: a ratio that leaves no hidden channel.
        """
        channels = source.records.shape[-1]
        ratio = min(RATIO, channels) if config.ratio is None else config.ratio
        if ratio > channels:
            raise ValueError(f"--ratio must be at most the number of channels, {channels}, got {ratio}")
        model = ChannelAttentionClassifier(
            channels, source.classes, ratio, dtype=jnp.dtype(config.dtype), rngs=nnx.Rngs(config.seed)
        )
        model.train()
        return model

    def draw(self, inputs: jax.Array, labels: jax.Array, indices: jax.Array, key: jax.Array) -> Batch:
        """Takes the arrays as they are."""
        return Batch(inputs, labels)

    def answer(self, network: ChannelAttentionClassifier, x: jax.Array) -> jax.Array:
        """The logits (b, classes)."""
        logits, _ = network(x)
        return logits

    def error(self, answer: jax.Array, y: jax.Array, where: jax.Array | None = None) -> jax.Array:
        """The cross-entropy."""
        return cross_entropy(answer, y, where)

    def is_right(self, answer: jax.Array, y: jax.Array) -> jax.Array:
        """Whether the label has the largest logit."""
        return is_largest(answer, y)
