"""Streams from 100,000 images, and prints how many it has read and its peak memory in bytes."""

import itertools
import re
from pathlib import Path

import numpy as np

from train.config import Config
from train.data import Source
from train.data.feed import Feed
from train.devices import Layout

COUNT, BATCH, BATCHES = 100_000, 64, 24


class Drawn:
    """Images that follow from their number: as many as STL-10's, without a file."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return np.random.default_rng(index).integers(0, 256, (96, 96, 3), np.uint8)


if __name__ == "__main__":
    source = Source("drawn", Drawn())
    feed = Feed(source, Config(batch_size=BATCH), Layout(BATCH), streamed=True)
    seen = {int(index) for fed in itertools.islice(feed.train(0, 0), BATCHES) for index in fed.indices}
    feed.close()
    # Not getrusage's, which begins with the memory of the process that has started this one.
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    print(len(seen), 1024 * int(peak[1]))
