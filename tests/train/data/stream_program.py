"""Streams from 100,000 images until it kills itself; prints its workers and what it read."""

import itertools
import multiprocessing
import os
import signal

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
    assert not source.resident
    feed = Feed(source, Config(batch_size=BATCH, workers=2), Layout(BATCH), streamed=True)
    seen = {int(index) for fed in itertools.islice(feed.train(0, 0), BATCHES) for index in fed.indices}
    print(len(seen), *(process.pid for process in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
