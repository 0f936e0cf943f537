"""What the training loop knows of its images: an array and where it is cut in two."""

from dataclasses import dataclass

import numpy as np

PATCH = 16  # pixels along each side of a patch; no image may be smaller
FEWEST = 5  # images, so that the last fifth is not empty


@dataclass(frozen=True)
class Source:
    """Images in file order; the first 80 % are for training, the last 20 % for testing.

    Args:
        name: what messages call it.
        images: uint8 (n, h, w, 3).

    Raises:
        ValueError: another dtype or shape, fewer than 5 images, or images smaller than 16x16.

    Example:
        >>> source = Source("mine", np.zeros((5000, 96, 96, 3), np.uint8))
        >>> source.train, source.test
        (range(0, 4000), range(4000, 5000))
    """

    name: str
    images: np.ndarray

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8:
            raise ValueError(f"{self.name}: images must be uint8, got {self.images.dtype}")
        if len(shape) != 4 or shape[-1] != 3:
            raise ValueError(f"{self.name}: images must have shape (n, h, w, 3), got {shape}")
        if min(shape[1:3]) < PATCH:
            raise ValueError(
                f"{self.name}: images must be at least {PATCH}x{PATCH}, the size of a patch, got {shape[1]}x{shape[2]}"
            )
        if shape[0] < FEWEST:
            raise ValueError(f"{self.name}: at least {FEWEST} images are needed, got {shape[0]}")

    @property
    def train(self) -> range:
        """The indices of the training images."""
        return range(len(self.images) * 4 // 5)

    @property
    def test(self) -> range:
        """The indices of the test images."""
        return range(len(self.images) * 4 // 5, len(self.images))
