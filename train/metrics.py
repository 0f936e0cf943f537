"""What is measured per epoch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochMetrics:
    """An epoch's line in ``metrics.jsonl``: mean losses and accuracies, and the speed of training.

    Training batches are scored before their step and in training mode, test batches after the epoch in eval mode.
    """

    epoch: int  # counted from 1
    train_error: float
    train_accuracy: float
    test_error: float
    test_accuracy: float
    images_per_second: float  # or arrays, or windows; without the first step, which may compile, but with the saves


class Tally:
    """Means over batches, weighted by their number of images; it may continue from the `state` of another."""

    def __init__(self, images: int = 0, error: float = 0.0, right: float = 0.0) -> None:
        self._images, self._error, self._right = images, error, right

    @property
    def state(self) -> tuple[int, float, float]:
        """The number of images, the sum of their errors, and how many were classified correctly."""
        return self._images, self._error, self._right

    def add(self, error: float, accuracy: float, images: int) -> None:
        """Adds the means over a batch of ``images``."""
        self._error += error * images
        self._right += accuracy * images
        self._images += images

    @property
    def error(self) -> float:
        """The mean error so far, NaN before the first batch."""
        return self._error / self._images if self._images else math.nan

    @property
    def accuracy(self) -> float:
        """The accuracy so far, NaN before the first batch."""
        return self._right / self._images if self._images else math.nan

    def __str__(self) -> str:
        return f"error {self.error:.4f} accuracy {self.accuracy:.3f}"
