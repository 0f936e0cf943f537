"""What is measured per epoch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochMetrics:
    """An epoch's line in ``metrics.jsonl``.

    Attributes:
        epoch: from 1, as the progress bar and the plots count.
        train_error: the mean loss over the training batches, each before its step, in training mode.
        train_accuracy: the share of records judged rightly in the same passes.
        test_error: the mean loss over the test records after the epoch, in eval mode.
        test_accuracy: the share of them judged rightly.
        images_per_second: training speed, of arrays or windows where those are the records. The first step, which may
            compile, is left out where there are others; saves within the epoch are not.
    """

    epoch: int
    train_error: float
    train_accuracy: float
    test_error: float
    test_accuracy: float
    images_per_second: float


class Tally:
    """Means over batches, weighted by their images.

    Args:
        images: to go on from: how many there were,
        error: the sum of their errors,
        right: how many of them were judged rightly.
    """

    def __init__(self, images: int = 0, error: float = 0.0, right: float = 0.0) -> None:
        self._images, self._error, self._right = images, error, right

    @property
    def state(self) -> tuple[int, float, float]:
        """What another tally may go on from."""
        return self._images, self._error, self._right

    def add(self, error: float, accuracy: float, images: int) -> None:
        """Takes the means over a batch of ``images``."""
        self._error += error * images
        self._right += accuracy * images
        self._images += images

    @property
    def error(self) -> float:
        """The mean error so far, NaN before the first batch."""
        return self._error / self._images if self._images else math.nan

    @property
    def accuracy(self) -> float:
        """The share judged rightly so far, NaN before the first batch."""
        return self._right / self._images if self._images else math.nan
