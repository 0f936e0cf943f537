"""Generated images in classes, drawn from a seed, with nothing to download: one shape in each, before a ground.

Classes differ in the shape alone. Colours, place, size and turn are drawn independently of it, and all shapes have the
same area at the same scale, so that the histogram of an image's colours says nothing about its class.
"""

from collections.abc import Callable

import numpy as np

SCALE = (0.35, 0.55)  # the root of a shape's area, of the image's side
REACH = 0.88  # from the centre to the farthest point, a tip of the triangle, at scale 1
CONTRAST = 0.4  # the least difference between a shape and the ground, in the channel where it is largest
NOISE = (0.01, 0.04)
RING = (0.372, 0.676)  # inner and outer radius
CROSS = (0.671, 0.224)  # half the length and half the width of an arm
TRIANGLE = 0.439  # radius of the circle within
STAR = (0.870, 0.391)  # radius of the tips, and of the corners between them


def disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The distance of points from the edge of a disc of area 1, negative inside; so for the other shapes."""
    return np.asarray(np.hypot(x, y) - np.pi**-0.5)


def square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(np.abs(x), np.abs(y)) - 0.5)


def triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angles = np.pi * np.array([1 / 2, 7 / 6, 11 / 6])[:, None, None]
    return np.asarray((x * np.cos(angles) + y * np.sin(angles)).max(0) - TRIANGLE)


def cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (length, width), x, y = CROSS, np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - length, y - width), np.maximum(x - width, y - length))


def ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    inner, outer = RING
    return np.asarray(np.abs(np.hypot(x, y) - (inner + outer) / 2) - (outer - inner) / 2)


def star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of five tips: folded into the sector between a tip and the corner next to it, it ends at one line."""
    tip, corner = STAR[0], STAR[1] * np.exp(1j * np.pi / 5)
    sector = 2 * np.pi / 5
    angle = np.abs((np.arctan2(y, x) + sector / 2) % sector - sector / 2)
    point, along = np.hypot(x, y) * np.exp(1j * angle), (corner - tip) / abs(corner - tip)
    return np.asarray(-((point - tip) * along.conjugate()).imag)


SHAPES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (cross, disc, ring, square, star, triangle)


def synthetic_shapes(count: int = 3000, *, seed: int = 0, size: int = 64) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draws uint8 images (count, size, size, 3), their labels (count,), and the names of the shapes.

    Image i depends on ``seed``, ``size`` and i alone.
    """
    rngs = np.random.default_rng(seed).spawn(count)
    labels = np.array([rng.integers(len(SHAPES)) for rng in rngs], np.int32)
    images = np.stack([_image(rng, SHAPES[label], size) for rng, label in zip(rngs, labels, strict=True)])
    return images, labels, [shape.__name__ for shape in SHAPES]


def _image(rng: np.random.Generator, shape: Callable[[np.ndarray, np.ndarray], np.ndarray], size: int) -> np.ndarray:
    scale = rng.uniform(*SCALE)
    y, x = (np.indices((size, size)) + 0.5) / size - rng.uniform(REACH * scale, 1 - REACH * scale, (2, 1, 1))
    turned = (x + 1j * y) * np.exp(1j * rng.uniform(0, 2 * np.pi)) / scale
    opacity = np.clip(0.5 - shape(turned.real, turned.imag) * scale * size, 0, 1)[..., None]
    ground = rng.uniform(0, 1, (2, 3))  # from one colour to another
    colour = rng.uniform(0, 1, 3)
    while np.abs(ground - colour).max(-1).min() < CONTRAST:
        colour = rng.uniform(0, 1, 3)
    slope = (np.exp(1j * rng.uniform(0, 2 * np.pi)) * (x + 1j * y)).real
    share = ((slope - slope.min()) / np.ptp(slope))[..., None]
    canvas = share * ground[0] + (1 - share) * ground[1]
    canvas += opacity * (colour - canvas) + rng.normal(0, rng.uniform(*NOISE), canvas.shape)
    return np.asarray(canvas.clip(0, 1) * 255 + 0.5, np.uint8)
