"""What training knows of its images: records by number, and which of them train and which test.

A small set is `resident`: it lives on the device whole. A large one streams (train/data/stream.py), and its images are
decoded when they are needed.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Protocol

import numpy as np

PATCH = 16  # pixels along each side of a patch; no image may be smaller
FEWEST = 5  # images, so that the last fifth is not empty

# 512 MiB, some 19,000 images of 96x96. The host's memory holds them once, and where the CPU computes once more for each
# of its devices; `train.devices.Layout.most` says how large those may be.
RESIDENT_BYTES = 2**29

LOOKED_AT = 16  # images of a large source, spread evenly: one more or less in a folder moves most of them


class Records(Protocol):
    """Images by number: a uint8 array (n, h, w, 3), or anything that decodes image i, uint8 (h, w, 3), when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


class Source:
    """Images in file order, cut in two: by default the first 80 % are for training, the last 20 % for testing.

    Args:
        name: what messages call it.
        records: a uint8 array (n, h, w, 3), or records that decode one image, all of one size, when asked.
        train: the indices of the training images.
        test: the indices of the test images.
        notes: what the user should know about how it was read, a line each; whoever opened the source shows them.

    Attributes:
        shape: height and width of every image.
        labels: None; the task makes them.
        unit: what the records are.

    Raises:
        ValueError: another dtype or shape, fewer than 5 images, images smaller than 16x16, or a split that has no
            images or reaches past the last one.

    Example:
        >>> source = Source("mine", np.zeros((5000, 96, 96, 3), np.uint8))
        >>> source.train, source.test, source.shape, source.resident
        (range(0, 4000), range(4000, 5000), (96, 96), True)
    """

    labels: np.ndarray | None = None
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
        # Of records that decode the first alone is looked at: whoever made them answers for the others.
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
        """What tells this source from another one, as JSON has it; of images that decode a few are looked at."""
        count = len(self.records)
        few = np.unique(np.linspace(0, count - 1, LOOKED_AT).astype(int))
        looked_at = self.records if isinstance(self.records, np.ndarray) else self.read(few)
        return {
            "images": count,
            "train": [self.train.start, self.train.stop],
            "test": [self.test.start, self.test.stop],
            "image_size": list(self.shape),
            "digest": hashlib.sha256(np.ascontiguousarray(looked_at)).hexdigest(),
        }

    @property
    def size(self) -> int:
        """The bytes of all images."""
        height, width = self.shape
        return len(self.records) * height * width * 3

    @property
    def resident(self) -> bool:
        """Whether the images are few enough to live on a device whole."""
        return self.size <= RESIDENT_BYTES

    @property
    def described(self) -> str:
        """What the records are, in words."""
        return f"{self.unit} of {self.shape[0]}x{self.shape[1]}"

    @property
    def inputs(self) -> np.ndarray:
        """What lies on the device where the source is `resident`: its `images`."""
        return self.images

    @cached_property
    def images(self) -> np.ndarray:
        """All images as one array, uint8 (n, h, w, 3), read at the first use and kept.

        Raises:
            ValueError: the source is too large to be `resident`.
        """
        if isinstance(self.records, np.ndarray):
            return self.records
        if not self.resident:
            raise ValueError(
                f"{self.name}: {len(self.records)} images of {self.shape[0]}x{self.shape[1]} are too many to hold at "
                f"once, at most {RESIDENT_BYTES >> 20} MiB; they have to be streamed"
            )
        return self.read(np.arange(len(self.records)))

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images of these indices (b,), uint8 (b, h, w, 3)."""
        if isinstance(self.records, np.ndarray):
            return self.records[indices]
        images = np.empty((len(indices), *self.shape, 3), np.uint8)
        with ThreadPoolExecutor() as threads:  # decoders leave Python's lock alone
            for place, image in enumerate(threads.map(self.records.__getitem__, map(int, indices))):
                images[place] = image
        return images
