"""Arrays whose class shows in which channels a burst of waves stands, with nothing to download.

Every class has its own channels. In an array of the class most of them carry a burst, a wave packet of random place,
direction, phase and strength; so do some other channels, by chance. A burst has no mean: the mean over the map, which
is all that the classifier sees behind the gate, says nothing about the class. Only the gate sees bursts, through its
max pooling, and it has to let channels through by what it sees.
"""

import numpy as np

HEIGHT, WIDTH, CHANNELS, CLASSES = 11, 13, 64, 6
OWN = 16  # channels of a class; classes share some
PRESENT, STRAY = 0.8, 0.1  # how often a channel of the class has a burst, and how often any channel
STRENGTH = (1.5, 4.0)
LEVEL, WANDER, NOISE = 0.7, 0.2, 0.2  # how much channels differ in their mean, and arrays in that of a channel; noise


def synthetic_arrays(count: int = 1000, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, None]:
    """Draws float32 arrays (count, 11, 13, 64), their labels (count,), and no names.

    Array i depends on ``seed`` and i alone.
    """
    rng = np.random.default_rng(seed)
    channels = np.stack([rng.permutation(CHANNELS)[:OWN] for _ in range(CLASSES)])
    levels = rng.normal(0, LEVEL, CHANNELS)
    arrays, labels = np.empty((count, HEIGHT, WIDTH, CHANNELS), np.float32), np.empty(count, np.int32)
    for i in range(count):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        labels[i] = rng.integers(CLASSES)
        own = np.isin(np.arange(CHANNELS), channels[labels[i]])
        has_burst = rng.random(CHANNELS) < np.where(own, PRESENT, STRAY)
        arrays[i] = levels + rng.normal(0, WANDER, CHANNELS) + rng.normal(0, NOISE, arrays[i].shape)
        arrays[i] += has_burst * rng.uniform(*STRENGTH, CHANNELS) * bursts(rng)
    return arrays, labels, None


def bursts(rng: np.random.Generator) -> np.ndarray:
    """A wave packet for every channel, (HEIGHT, WIDTH, CHANNELS), with mean 0."""
    turn, phase = rng.uniform(0, 2 * np.pi, (2, CHANNELS))
    y = np.arange(HEIGHT)[:, None, None] - rng.uniform(2, HEIGHT - 3, CHANNELS)
    x = np.arange(WIDTH)[:, None] - rng.uniform(2, WIDTH - 3, CHANNELS)
    wave = np.cos(2 * np.pi / rng.uniform(3, 6, CHANNELS) * (x * np.cos(turn) + y * np.sin(turn)) + phase)
    wave *= np.exp(-(x**2 + y**2) / (2 * 2.0**2))
    return wave - wave.mean((0, 1))
