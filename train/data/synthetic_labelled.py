"""Generated data with classes, drawn from a seed, with nothing to download: arrays and windows.

Arrays: each class has its own channels, most of which carry a burst, a wave packet of random place, direction, phase
and strength; so do a few other channels, by chance. A burst has mean 0, so the mean over the map, which is all that the
classifier sees behind the gate, says nothing about the class. Only the gate sees bursts, through its max pooling, and
has to pass channels accordingly.

Windows: 2.56 seconds of a phone's accelerometer (in g) and gyroscope (in rad/s), three axes each, at 25 Hz. Activities
differ in gravity's direction (lying, sitting, standing) and in the rhythm, strength and harmonics of motion (walking,
stairs, running). Each person moves at an individual pace and strength and carries the phone a little tilted; a window
begins anywhere in the stride. Some windows of sitting and standing, and of walking and stairs, look alike.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

HEIGHT, WIDTH, CHANNELS, CLASSES = 11, 13, 64, 6
OWN = 16  # channels per class; classes share some
PRESENT, STRAY = 0.8, 0.1  # probability of a burst in a channel of the class, and in any other
STRENGTH = (1.5, 4.0)
LEVEL, WANDER, NOISE = 0.7, 0.2, 0.2  # spread of the channels' means, of a channel's mean between arrays, and of pixels

RATE, SERIES, SENSORS = 25.0, 64, 6
TILT = 0.35  # radians, about each axis
SENSOR_NOISE = (0.03, 0.06)  # of the accelerometer and the gyroscope


def synthetic_arrays(count: int = 1000, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, None]:
    """Draws float32 arrays (count, 11, 13, 64), their labels (count,), and no names.

    Array i depends on ``seed`` and i alone.
    """
    rng = np.random.default_rng(seed)
    channels = np.stack([rng.permutation(CHANNELS)[:OWN] for _ in range(CLASSES)])
    levels = rng.normal(0, LEVEL, CHANNELS)
    arrays, labels = np.empty((count, HEIGHT, WIDTH, CHANNELS), np.float32), np.empty(count, np.int32)
    for i, each in enumerate(rng.spawn(count)):
        labels[i] = each.integers(CLASSES)
        own = np.isin(np.arange(CHANNELS), channels[labels[i]])
        has_burst = each.random(CHANNELS) < np.where(own, PRESENT, STRAY)
        arrays[i] = levels + each.normal(0, WANDER, CHANNELS) + each.normal(0, NOISE, arrays[i].shape)
        arrays[i] += has_burst * each.uniform(*STRENGTH, CHANNELS) * _bursts(each)
    return arrays, labels, None


def _bursts(rng: np.random.Generator) -> np.ndarray:
    """A wave packet with mean 0 for every channel, (HEIGHT, WIDTH, CHANNELS)."""
    turn, phase = rng.uniform(0, 2 * np.pi, (2, CHANNELS))
    y = np.arange(HEIGHT)[:, None, None] - rng.uniform(2, HEIGHT - 3, CHANNELS)
    x = np.arange(WIDTH)[:, None] - rng.uniform(2, WIDTH - 3, CHANNELS)
    wave = np.cos(2 * np.pi / rng.uniform(3, 6, CHANNELS) * (x * np.cos(turn) + y * np.sin(turn)) + phase)
    wave *= np.exp(-(x**2 + y**2) / (2 * 2.0**2))
    return np.asarray(wave - wave.mean((0, 1)))


class Activity(NamedTuple):
    """Gravity's direction, and motion: strides per second, strength in g, and the second harmonic's share."""

    name: str
    gravity: tuple[float, float, float]
    pace: float = 0.3
    strength: float = 0.02
    second: float = 0.3


ACTIVITIES = (
    Activity("lying", (1.0, 0.2, 0.1)),
    Activity("sitting", (0.1, 0.7, 0.7)),
    Activity("standing", (0.1, 1.0, 0.1), strength=0.03),
    Activity("walking", (0.1, 1.0, 0.1), 1.8, 0.30, 0.5),
    Activity("stairs", (0.1, 0.9, 0.35), 1.5, 0.30, 0.8),
    Activity("running", (0.1, 1.0, 0.1), 2.6, 0.80, 0.3),
)


def synthetic_windows(count: int = 1500, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Draws float32 windows (count, 64, 6), their labels (count,), and the names of the activities.

    Window i depends on ``seed`` and i alone.
    """
    rng = np.random.default_rng(seed)
    shares = rng.normal(0, 1, (len(ACTIVITIES), 2, SENSORS))  # of each axis in the two harmonics
    rngs = rng.spawn(count)
    labels = np.array([each.integers(len(ACTIVITIES)) for each in rngs], np.int32)
    windows = [_window(each, ACTIVITIES[label], shares[label]) for each, label in zip(rngs, labels, strict=True)]
    return np.array(windows, np.float32), labels, tuple(activity.name for activity in ACTIVITIES)


def _window(rng: np.random.Generator, activity: Activity, shares: np.ndarray) -> np.ndarray:
    """One person's window (SERIES, SENSORS)."""
    pace = activity.pace * np.exp(rng.normal(0, 0.12))
    strength = activity.strength * np.exp(rng.normal(0, 0.35))
    first = 2 * np.pi * pace * np.arange(SERIES)[:, None] / RATE + rng.uniform(0, 2 * np.pi)
    lag = rng.normal(0, 0.4, (2, SENSORS))  # from axis to axis
    own = shares + rng.normal(0, 0.4, shares.shape)
    motion = own[0] * np.sin(first + lag[0]) + activity.second * own[1] * np.sin(2 * first + lag[1])
    gravity = np.array(activity.gravity) / np.linalg.norm(activity.gravity)
    turned = motion * strength
    turned[:, 3:] *= 3  # radians per second for each g, roughly a leg's
    turned[:, :3] += gravity
    turn = Rotation.from_euler("xyz", rng.normal(0, TILT, 3)).as_matrix()
    turned = np.concatenate([turned[:, :3] @ turn, turned[:, 3:] @ turn], axis=1)
    return np.asarray(turned + rng.standard_normal(turned.shape) * np.repeat(SENSOR_NOISE, 3))
