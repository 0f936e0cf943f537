"""Dead-leaves images: a photograph-like data set drawn from a seed, with nothing to download.

Objects that occlude one another, with sizes spread over all scales, give images the statistics of photographs:
a power spectrum near 1/f^2, sparse gradients and sharp edges.  The model is Matheron's dead leaves ("Modele
sequentiel de partition aleatoire", 1968) as fitted to photographs by Lee, Mumford & Huang ("Occlusion models for
natural images", 2001); Baradad et al. ("Learning to see by looking at noise", 2021) trained networks on it.
Leaves are painted back to front, each with its opacity a over what lies beneath, and have power-law radii:

    x <- x + a (c s t - x),    p(r) ~ r^-3 for r_min <= r <= r_max,

where c is the leaf's colour, s its shading and t its texture.  Colours are Gaussian in luminance and two opponent
axes, which are nearly uncorrelated in photographs (Ruderman, Cronin & Chiao, 1998).
"""

from typing import NamedTuple

import numpy as np

SHAPES = 512
TEXTURES = 64
SMALLEST_RADIUS = 1.5

# Rows: luminance, red-blue and green-magenta, the principal axes of RGB in photographs.
COLOUR_AXES = np.array([[1, 1, 1], [1, 0, -1], [-0.5, 1, -0.5]], np.float32)


class Bank(NamedTuple):
    """What all images of one seed are put together from: drawing these anew for each leaf would cost minutes."""

    opacity: list[np.ndarray]
    shading: list[np.ndarray]
    odds: np.ndarray
    texture: np.ndarray
    grain: np.ndarray


def synthetic_images(count: int = 5000, *, seed: int = 0, size: int = 96) -> np.ndarray:
    """Draw `count` images, uint8 (count, size, size, 3); image i depends on `seed` and i alone."""
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    if not 32 <= size <= 256:
        raise ValueError(f"size: expected 32 to 256, got {size}")
    bank = make_bank(np.random.default_rng(seed), size)
    images = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        images[i] = develop(rng, paint(rng, bank, size), bank.grain).transpose(1, 2, 0)
    return images


def make_bank(rng: np.random.Generator, size: int) -> Bank:
    """Shapes of all sizes, textures and sensor grain, shared by the images of a seed."""
    # Radii are log-uniform here, p(r) ~ 1/r, and drawn with odds r^-2, so that few large shapes do not
    # recur all the time.
    radii = np.geomspace(SMALLEST_RADIUS, size / 2, SHAPES)
    opacity, shading = zip(*(leaf(rng, radius, size) for radius in radii), strict=True)
    odds = radii**-2
    texture = np.stack([light_field(rng, 2 * size) for _ in range(TEXTURES)])
    grain = rng.standard_normal((3, 2 * size, 2 * size), dtype=np.float32)
    return Bank(list(opacity), list(shading), np.cumsum(odds / odds.sum()), texture, grain)


def leaf(rng: np.random.Generator, radius: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Opacity and shading of an ellipse, polygon or blob of the area of a disc of this radius."""
    aspect = np.exp(abs(rng.normal(0, 0.6)))
    softness = 0.7 + rng.exponential(0.4)
    reach = min(int(1.5 * radius * aspect**0.5) + 2, size)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    u = (x * np.cos(turn) + y * np.sin(turn)) / aspect**0.5
    v = (y * np.cos(turn) - x * np.sin(turn)) * aspect**0.5
    edge = radius * outline(rng, np.arctan2(v, u))
    distance = np.hypot(u, v)
    opacity = np.clip(0.5 + (edge - distance) / softness, 0, 1)
    slope = rng.normal(0, 0.25, 2) / radius
    bulge = rng.exponential(0.15)
    shading = np.exp(slope[0] * x + slope[1] * y - bulge * (distance / radius) ** 2)
    return opacity.astype(np.float32), np.clip(shading, 0.2, 1.6).astype(np.float32)


def outline(rng: np.random.Generator, angle: np.ndarray) -> np.ndarray:
    """Distance of the edge from the centre at each angle, for a mean radius near 1."""
    kind = rng.choice(["ellipse", "polygon", "blob"], p=[0.3, 0.4, 0.3])
    if kind == "ellipse":
        return np.ones_like(angle)
    if kind == "polygon":
        sector = 2 * np.pi / rng.choice([3, 4, 4, 4, 5, 6])
        return 1.15 * np.cos(sector / 2) / np.cos(angle % sector - sector / 2)
    waves = np.arange(2, 8)
    height = rng.normal(0, 0.3, waves.size) / waves
    phase = rng.uniform(0, 2 * np.pi, waves.size)
    return np.exp(sum(h * np.cos(k * angle + p) for h, k, p in zip(height, waves, phase, strict=True)))


def light_field(rng: np.random.Generator, size: int) -> np.ndarray:
    """A texture as a factor near 1: 1/f noise, stretched along a direction, or a wavy grating."""
    f = np.fft.fftfreq(size)
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.exponential(0.7))
    fu = f[:, None] * np.cos(turn) + f * np.sin(turn)
    fv = f * np.cos(turn) - f[:, None] * np.sin(turn)
    radius = np.hypot(fu, fv * stretch) + 1 / size
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * radius ** rng.uniform(-1.8, -0.6)).real
    noise /= noise.std()
    if rng.random() < 0.12:
        period = np.exp(rng.uniform(np.log(3), np.log(16)))
        y, x = np.mgrid[:size, :size]
        noise = np.sin(2 * np.pi / period * (x * np.cos(turn) + y * np.sin(turn)) + 1.5 * noise)
    return np.exp(rng.exponential(0.12) * noise).astype(np.float32)


def materials(rng: np.random.Generator, number: int) -> np.ndarray:
    """Colours (number, 3) of one scene: its own brightness, tint and saturation, and spread around them."""
    spread = np.array([0.3, 0.09, 0.04]) * [1, *np.exp(rng.normal(-0.2, 0.8, 1).repeat(2))]
    centre = rng.normal([0.45, 0.02, 0.0], np.array([0.1, 0.6, 0.6]) * [1, *spread[1:]])
    return (centre + rng.normal(0, spread, (number, 3))) @ COLOUR_AXES


def paint(rng: np.random.Generator, bank: Bank, size: int) -> np.ndarray:
    """A scene, float32 (3, size, size) with 1 the sensor's white: a ground and the leaves upon it."""
    palette = np.clip(materials(rng, 8), 0.01, 1.1)
    finest = np.exp(rng.uniform(0, np.log(8)))
    number = int(rng.uniform(0.2, 2.2) * 600 / finest**2) + 8
    number = min(number, 300)
    shape = np.searchsorted(bank.odds, rng.uniform(1 - finest**-2, 1, number)).tolist()
    kind = rng.integers(0, len(palette), number)
    surface = rng.integers(0, TEXTURES, len(palette))
    colour = (palette[kind] * np.exp(rng.normal(0, 0.15, (number, 1)))).astype(np.float32)
    canvas = palette[0].astype(np.float32)[:, None, None] * bank.texture[surface[0], :size, :size]
    offset = rng.integers(0, size, (number, 2)).tolist()
    where = (rng.normal(0.5, 0.1, 2) + rng.uniform(0.3, 0.8) * rng.uniform(-1, 1, (number, 2))) * size
    for j, (cy, cx) in enumerate(where.astype(int).tolist()):
        a, s = bank.opacity[shape[j]], bank.shading[shape[j]]
        reach = len(a) // 2
        top, left = cy - reach, cx - reach
        y0, y1, x0, x1 = max(top, 0), min(cy + reach + 1, size), max(left, 0), min(cx + reach + 1, size)
        if y0 >= y1 or x0 >= x1:
            continue
        part = canvas[:, y0:y1, x0:x1]
        crop = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        oy, ox = offset[j]
        light = s[crop] * bank.texture[surface[kind[j]], oy : oy + y1 - y0, ox : ox + x1 - x0]
        new = colour[j][:, None, None] * light
        new -= part
        new *= a[crop]
        part += new
    return canvas


def develop(rng: np.random.Generator, scene: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """The camera: exposure, a slight blur, sensor noise and eight bits."""
    blur = 0.25 * rng.random()
    size = scene.shape[-1]
    for axis in (1, 2):
        padded = np.pad(scene, [(0, 0)] + [(int(axis == k),) * 2 for k in (1, 2)], "edge")
        before, after = (padded[:, :-2], padded[:, 2:]) if axis == 1 else (padded[:, :, :-2], padded[:, :, 2:])
        scene = (1 - blur) * scene + blur / 2 * (before + after)
    y, x = rng.integers(0, size, 2)
    noise = grain[:, y : y + size, x : x + size] * np.float32(0.004 + rng.exponential(0.01))
    return (np.clip(scene + noise, 0, 1) * 255 + 0.5).astype(np.uint8)
