"""The patch task: does an image hold a white patch? Its patches are drawn and painted by `train.task`."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from flax_attn.networks.patch import PatchNetwork

from ..config import Config
from ..data import Source, open_source
from ..data.folder import Progress
from ..networks import build_network
from ..task import article_patches, paint, per_image_patches, split_key
from .task import Batch

TINY = 1e-8  # keeps the logarithms of the loss finite


@dataclass(frozen=True)
class PatchTask:
    """Half of the images get a patch, and the network says which: p is the probability that there is one.

    Attributes:
        patches: their rule, "per_image" or "article".
    """

    patches: str

    def open(self, data: str, progress: Progress | None = None) -> Source:
        """Opens images."""
        return open_source(data, progress)

    def build(self, config: Config, source: Source) -> PatchNetwork:
        """The network that ``config`` names, for images of this size."""
        return build_network(config, *source.shape)

    def draw(self, inputs: jax.Array, labels: None, indices: jax.Array, key: jax.Array) -> Batch:
        """Paints patches, which are the labels, on images, uint8 (b, h, w, 3)."""
        return draw_batch(inputs, indices, key, self.patches)

    def answer(self, network: PatchNetwork, x: jax.Array) -> jax.Array:
        """p, (b,)."""
        p, _ = network(x)
        return p

    def error(self, answer: jax.Array, y: jax.Array, where: jax.Array | None = None) -> jax.Array:
        """The tutorial's loss."""
        return mean_error(answer, y, where)

    def is_right(self, answer: jax.Array, y: jax.Array) -> jax.Array:
        """Whether p, rounded, is the label."""
        return is_right(answer, y)

    def finish(self, folder: Path, config: Config, network: PatchNetwork, source: Source) -> list[str]:
        """Writes ``localisation.json`` and ``attention.png``."""
        from ..look import finish  # matplotlib, for which a step need not wait

        return [finish(folder, config, network, source)]


def draw_batch(images: jax.Array, indices: jax.Array, key: jax.Array, rule: str) -> Batch:
    """Paints the patches of one of the rules on images, uint8 (b, h, w, 3).

    Returns:
        x (b, h, w, 3) in float32, and y (b,), 1 where there is a patch, else 0.
    """
    batch_size, height, width, _ = images.shape
    if rule == "article":
        patches = article_patches(batch_size, height, width)
    else:
        patches = per_image_patches(key, indices, height, width)
    return Batch(paint(images, patches), patches.label.astype(jnp.float32))


@partial(jax.jit, static_argnames=("split", "rule"))
def draw_fed(
    images: jax.Array,
    places: jax.Array,
    indices: jax.Array,
    epoch: jax.Array | int,
    key: jax.Array,
    *,
    split: int,
    rule: str,
) -> Batch:
    """`draw_batch` for whoever trains otherwise on what a run sees; arguments as `train.step.train_step`'s."""
    return draw_batch(images[places], indices, split_key(key, split, epoch), rule)


def mean_error(p: jax.Array, y: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """The tutorial's binary cross-entropy, ``-mean(y log(p + 1e-8) + (1 - y) log(1 - p + 1e-8))``.

    In float32 for narrower probabilities, in float64 for those.

    Args:
        p: (b,), the probability of a patch.
        y: (b,), 1 where there is one, else 0.
        where: (b,), which images count.

    Example:
        >>> float(mean_error(jnp.array([1.0, 0.5]), jnp.array([1.0, 0.0]))).__round__(4)
        0.3466
    """
    p = p.astype(jnp.promote_types(p.dtype, jnp.float32))
    # One logarithm, of the probability given to the truth: as y is 0 or 1 the other has no weight. XLA turns
    # 1 - p + 1e-8 into (1 + 1e-8) - p, which is 0 for p = 1 in float32, and then 0 * log(0) is NaN.
    truth = jnp.where(y == 1, p, 1 - p)
    return -jnp.mean(jnp.log(truth + TINY), where=where)


def is_right(p: jax.Array, y: jax.Array) -> jax.Array:
    """Whether the prediction, p rounded, is the label."""
    return jnp.round(p) == y
