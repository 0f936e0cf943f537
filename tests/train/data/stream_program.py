"""Streams from 100,000 images; run by a test that watches its memory: ``stream_program.py BATCHES WORKERS [DATA]``."""

import itertools
import sys
import time

import numpy as np

from train.data import Source, open_source
from train.data.stream import Stream

COUNT, BATCH = 100_000, 64


class Drawn:
    """Images that follow from their number: as many as STL-10's, without a file."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return np.random.default_rng(index).integers(0, 256, (96, 96, 3), np.uint8)


def main(count: int, workers: int, data: str | None = None) -> None:
    source = open_source(data) if data else Source("drawn", Drawn())
    assert not source.resident
    stream = Stream(source, BATCH, seed=0, shuffle=True, workers=workers)
    batches = stream.batches()
    first, began, seen = next(batches)[0], time.perf_counter(), set()
    assert first.shape == (BATCH, 96, 96, 3)
    print("first batch", flush=True)
    for _, indices in itertools.islice(batches, count - 1):
        seen.update(indices.tolist())
    speed = (count - 1) * BATCH / (time.perf_counter() - began)
    batches.close()
    print(f"{len(seen)} images of {len(source.train)}, {speed:.0f} a second")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
