"""``python -m train`` on images that worker processes read; run by a test that ends all of its processes at once."""

import sys
import time

import train.tasks.patch
from train.__main__ import main
from train.data import Source, source

from .conftest import small_images


class Read:
    """Images that are read one by one, so slowly that the run waits for its workers."""

    def __init__(self):
        self.images = small_images(2000)  # the test is far away

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        time.sleep(0.05)
        return self.images[index]


if __name__ == "__main__":
    source.RESIDENT_BYTES = 0
    train.tasks.patch.open_source = lambda data, progress: Source("read", Read())
    sys.exit(main())
