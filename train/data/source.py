"""Numbered images, split into training and test images.

A small source is `resident`: it fits on the device whole. A larger one is streamed (train/data/feed.py), its images
decoded when they are needed.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Protocol

import numpy as np

PATCH = 16  # pixels along each side of a patch, the smallest image
FEWEST = 5  # images, so that the last fifth is not empty
RESIDENT_BYTES = 2**29  # 512 MiB, some 19,000 images of 96x96
SAMPLED = 16  # images of a large source that are hashed; adding or removing a file changes most of them


class Records(Protocol):
    """Images by number: a uint8 array (n, h, w, 3), or an object that decodes image i, uint8 (h, w, 3), on demand."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


class Source:
    """Images in file order; by default the first 80 % are for training, the last 20 % for testing.

    Args:
        name: for messages.
        records: a uint8 array (n, h, w, 3), or an object that decodes image i on demand, all of one size.
        train: the indices of the training images.
        test: the indices of the test images.
        notes: what the user should know about the data, one line each.

    Raises:
        ValueError: wrong dtype or shape, too few or too small images, or a split outside of them.

    Example:
        >>> source = Source("mine", np.zeros((5000, 96, 96, 3), np.uint8))
        >>> source.train, source.test, source.shape, source.resident
        (range(0, 4000), range(4000, 5000), (96, 96), True)
    """

    labels: np.ndarray | None = None  # the patch task makes its own
    unit = "images"

    def __init__(
        self,
        name: str,
        records: Records,
        train: range | None = None,
        test: range | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.name, self.records, self.notes = name, records, tuple(notes)
        count = len(records)
        self.shape = self._check_images(count)
        self.train = range(count * 4 // 5) if train is None else train
        self.test = range(count * 4 // 5, count) if test is None else test
        for part in (self.train, self.test):
            if not part or part.step != 1 or part.start < 0 or part.stop > count:
                raise ValueError(f"{name}: a split must be a range within the {count} images, got {part}")

    def _check_images(self, count: int) -> tuple[int, int]:
        # Of images that are decoded on demand only the first is checked.
        images = self.records if isinstance(self.records, np.ndarray) else self.records[0][None]
        if images.dtype != np.uint8:
            raise ValueError(f"{self.name}: images must be uint8, got {images.dtype}")
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"{self.name}: images must have shape (n, h, w, 3), got {images.shape}")
        height, width = images.shape[1:3]
        if min(height, width) < PATCH:
            raise ValueError(
                f"{self.name}: images must be at least {PATCH}x{PATCH}, the size of a patch, got {height}x{width}"
            )
        if count < FEWEST:
            raise ValueError(f"{self.name}: at least {FEWEST} images are needed, got {count}")
        return height, width

    @cached_property
    def identity(self) -> dict[str, Any]:
        """A fingerprint of the data for JSON; of images that are decoded on demand it hashes a sample."""
        count = len(self.records)
        sample = np.unique(np.linspace(0, count - 1, SAMPLED).astype(int))
        hashed = self.records if isinstance(self.records, np.ndarray) else self.read(sample)
        return {
            "images": count,
            "train": [self.train.start, self.train.stop],
            "test": [self.test.start, self.test.stop],
            "image_size": list(self.shape),
            "digest": hashlib.sha256(np.ascontiguousarray(hashed).data).hexdigest(),
        }

    @property
    def size(self) -> int:
        """The bytes of all images."""
        height, width = self.shape
        return len(self.records) * height * width * 3

    @property
    def resident(self) -> bool:
        """Whether the images are few enough to stay on the device."""
        return self.size <= RESIDENT_BYTES

    @property
    def described(self) -> str:
        """The kind and size of the records, for messages."""
        return f"{self.unit} of {self.shape[0]}x{self.shape[1]}"

    @cached_property
    def images(self) -> np.ndarray:
        """All images of a `resident` source, uint8 (n, h, w, 3); decoded once, at the first use."""
        if isinstance(self.records, np.ndarray):
            return self.records
        if not self.resident:
            raise ValueError(
                f"{self.name}: {len(self.records)} images of {self.shape[0]}x{self.shape[1]} exceed the "
                f"{RESIDENT_BYTES >> 20} MiB that may be held in memory; stream them"
            )
        return self.read(np.arange(len(self.records)))

    @property
    def inputs(self) -> np.ndarray:
        """What a `resident` source puts on the device."""
        return self.images

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images with these indices (b,), uint8 (b, h, w, 3)."""
        if isinstance(self.records, np.ndarray):
            return np.asarray(self.records[indices])
        images = np.empty((len(indices), *self.shape, 3), np.uint8)
        with ThreadPoolExecutor() as threads:  # decoders release the GIL
            for place, image in enumerate(threads.map(self.records.__getitem__, map(int, indices))):
                images[place] = image
        return images
