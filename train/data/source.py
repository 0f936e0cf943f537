"""Numbered images, split into training and test images.

A small source is kept whole on the devices; a larger one is streamed and decoded on demand (train/data/feed.py).
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

PATCH = 16  # pixels along each side of a patch, the smallest image
FEWEST = 5  # images, so that the last fifth is not empty
SAMPLED = 16  # images of a large source that are hashed; adding or removing a file changes most of them


class Source:
    """Images in file order; by default the first 80 % are for training, the last 20 % for testing.

    Args:
        name: for messages.
        records: a uint8 array (n, h, w, 3), or an object with a length that decodes image i, uint8 (h, w, 3), as its
            item i; all images have one size.
        train: the indices of the training images.
        test: the indices of the test images.
        notes: what the user should know about the data, one line each.

    Raises:
        ValueError: wrong dtype or shape, or too few or too small images.

    Example:
        >>> source = Source("mine", np.zeros((5000, 96, 96, 3), np.uint8))
        >>> source.train, source.test, source.shape, source.size
        (range(0, 4000), range(4000, 5000), (96, 96), 138240000)
    """

    labels: np.ndarray | None = None  # the patch task makes its own
    unit = "images"

    def __init__(
        self, name: str, records: Any, train: range | None = None, test: range | None = None, notes: Sequence[str] = ()
    ) -> None:
        self.name, self.records, self.notes = name, records, tuple(notes)
        count = len(records)
        self.train, self.test = train or range(count * 4 // 5), test or range(count * 4 // 5, count)
        first: Any = records[0] if count else np.empty(0)
        image = first.dtype == np.uint8 and (first.ndim, *first.shape[2:]) == (3, 3)
        if count < FEWEST or not image or min(first.shape[:2]) < PATCH:
            needed = f"at least {FEWEST} images of at least {PATCH}x{PATCH} pixels, uint8 (n, h, w, 3), are needed"
            raise ValueError(f"{name}: {needed}, got {first.dtype} {(count, *first.shape)}")
        self.shape: tuple[int, int] = first.shape[:2]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """A fingerprint of the data for JSON; of images that are decoded on demand it hashes a sample."""
        sample = np.unique(np.linspace(0, len(self.records) - 1, SAMPLED).astype(int))
        hashed = self.records if isinstance(self.records, np.ndarray) else self.read(sample)
        return self.identify(hashed, image_size=list(self.shape))

    def identify(self, *hashed: np.ndarray, **values: Any) -> dict[str, Any]:
        """The number of records, their split, these values, and a digest of the arrays."""
        digest = hashlib.sha256()
        for array in hashed:
            digest.update(np.ascontiguousarray(array).data)
        ends = {"train": [self.train.start, self.train.stop], "test": [self.test.start, self.test.stop]}
        return {self.unit: len(self.records), **ends, **values, "digest": digest.hexdigest()}

    @cached_property
    def size(self) -> int:
        """The bytes of all records."""
        return len(self.records) * int(self.records[0].nbytes)

    @property
    def described(self) -> str:
        """The kind and size of the records, for messages."""
        return f"{self.unit} of {self.shape[0]}x{self.shape[1]}"

    def read(self, indices: np.ndarray | slice) -> np.ndarray:
        """The records with these indices, (b, ...); raises ``OSError`` where one cannot be read any more."""
        if isinstance(self.records, np.ndarray):
            return np.asarray(self.records[indices])
        wanted = np.arange(len(self.records))[indices].tolist()
        with ThreadPoolExecutor() as threads:  # decoders release the GIL
            return np.stack(list(threads.map(self.records.__getitem__, wanted)))
