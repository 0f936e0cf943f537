"""Which records make which batch."""

from collections.abc import Iterator

import numpy as np


def train_batches(images: range, batch_size: int, *, shuffle: bool, seed: int, epoch: int) -> np.ndarray:
    """The indices (steps, batch_size) of an epoch's batches; drops the last, incomplete one.

    Example:
        >>> train_batches(range(5), 2, shuffle=False, seed=0, epoch=0).tolist()
        [[0, 1], [2, 3]]
    """
    order = np.arange(images.start, images.stop, dtype=np.int32)
    if shuffle:
        order = np.random.default_rng([seed, epoch]).permutation(order)
    full = len(order) // batch_size * batch_size
    return order[:full].reshape(-1, batch_size)


def eval_batches(images: range, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the indices (batch_size,) of each batch in file order, and which of them are real, not filling.

    Example:
        >>> [(batch.tolist(), real.tolist()) for batch, real in eval_batches(range(5, 8), 2)]
        [([5, 6], [True, True]), ([7, 7], [True, False])]
    """
    for start in range(images.start, images.stop, batch_size):
        places = np.arange(start, start + batch_size, dtype=np.int32)
        yield np.minimum(places, images.stop - 1), places < images.stop


def check_batch_size(batch_size: int, images: range, unit: str = "images") -> None:
    """Raises ``ValueError`` where the training images, or what ``unit`` says, do not fill one batch."""
    if batch_size > len(images):
        raise ValueError(f"--batch-size must be at most the number of training {unit}, {len(images)}, got {batch_size}")
