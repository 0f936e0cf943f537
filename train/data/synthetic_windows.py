"""Windows of motion as a phone in a pocket would record them, drawn from a seed, with nothing to download.

Each window is 2.56 seconds of an accelerometer (in g) and a gyroscope (in rad/s), three axes each, at 25 Hz. What tells
activities apart: how gravity lies on the axes (to lie, sit, stand), and the rhythm, strength and harmonics of motion
(to walk, climb stairs, run). Everybody moves at a pace and strength of their own and carries the phone a little askew;
the window begins anywhere in the stride. Some windows of sitting and standing, and of walking and stairs, look alike.
"""

from typing import NamedTuple

import numpy as np

RATE, SERIES, SENSORS = 25.0, 64, 6
TILT = 0.35  # radians by which a phone is turned about each of its axes
NOISE = (0.03, 0.06)  # of the accelerometer and the gyroscope


class Activity(NamedTuple):
    """Gravity's direction, and motion: strides per second, strength in g, and the second harmonic's part of it."""

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
    windows, labels = np.empty((count, SERIES, SENSORS), np.float32), np.empty(count, np.int32)
    for i in range(count):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        labels[i] = rng.integers(len(ACTIVITIES))
        windows[i] = window(rng, ACTIVITIES[labels[i]], shares[labels[i]])
    return windows, labels, tuple(activity.name for activity in ACTIVITIES)


def window(rng: np.random.Generator, activity: Activity, shares: np.ndarray) -> np.ndarray:
    """One window (SERIES, SENSORS) of somebody's."""
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
    turn = rotation(*rng.normal(0, TILT, 3))
    turned = np.concatenate([turned[:, :3] @ turn, turned[:, 3:] @ turn], axis=1)
    return turned + rng.standard_normal(turned.shape) * np.repeat(NOISE, 3)


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """The matrix (3, 3) that turns about the three axes, one after the other.

    Example:
        >>> rotation(0, 0, np.pi / 2).round(9) + 0
        array([[ 0., -1.,  0.],
               [ 1.,  0.,  0.],
               [ 0.,  0.,  1.]])
    """
    turns = []
    for axis, angle in enumerate((x, y, z)):
        a, b = (place for place in range(3) if place != axis)
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[b, a] = np.sin(angle)
        turn[a, b] = -turn[b, a]
        turns.append(turn)
    first, second, third = turns
    matrix: np.ndarray = third @ second @ first
    return matrix
