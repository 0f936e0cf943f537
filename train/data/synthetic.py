"""Dead-leaves images: a photograph-like data set drawn from a seed, with nothing to download.

Objects that occlude one another, with sizes spread over all scales, give images the statistics of
photographs: a power-law spectrum, sparse gradients, sharp edges.  The model is Matheron's ("Modèle séquentiel
de partition aléatoire", 1968) as fitted to photographs by Lee, Mumford & Huang ("Occlusion models for natural
images", 2001); Baradad et al. ("Learning to see by looking at noise", 2021) train networks on it.  Leaves
with power-law radii are painted over one another, each with its opacity a over the picture x beneath,

    x <- (1 - a) x + a s t c,    p(r) ~ r^-3 for r_min <= r <= r_max,

where c is the colour of the leaf, s its shading and t its texture.  Colours are Gaussian along luminance and
two opponent axes, nearly uncorrelated in photographs (Ruderman, Cronin & Chiao, 1998).  A few scenes hold a
blown-out material: near-white grounds and highlights of all sizes, about as frequent as in photographs.
"""

from typing import NamedTuple

import numpy as np

# These numbers and those below are fitted by hand to 96x96 photographs: to the brightness, contrast, channel
# correlation, saturation, power spectrum, gradients and near-white 16x16 windows of 5,000 of them.
SHAPES = 512
TEXTURES = 64
MATERIALS = 8
SMALLEST_RADIUS = 1.2
BLOWN_OUT = 0.045  # share of the scenes

# Luminance, red-blue, green-magenta: the principal axes of RGB in photographs, and the spread within a scene.
COLOUR_AXES = np.array([[1, 1, 1], [1, 0, -1], [-0.5, 1, -0.5]])
COLOUR_SPREAD = np.array([0.37, 0.1, 0.045])


class Bank(NamedTuple):
    """The parts of a seed's images, drawn once: drawing them for each leaf would take minutes."""

    radius: np.ndarray
    extent: np.ndarray
    transparency: list[np.ndarray]
    shading: list[np.ndarray]
    texture: np.ndarray
    noise: np.ndarray


def synthetic_images(count: int = 5000, *, seed: int = 0, size: int = 96) -> np.ndarray:
    """Draws uint8 images (count, size, size, 3); image i depends on `seed`, `size` and i alone."""
    bank = make_bank(np.random.default_rng(seed), size)
    images = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        images[i] = develop(rng, paint(rng, bank), bank.noise).transpose(1, 2, 0)
    return images


def make_bank(rng: np.random.Generator, size: int) -> Bank:
    """Shapes of all sizes, textures and sensor noise."""
    # As many shapes per octave: under r^-3 itself the few large ones would be the same in every image.
    radius = np.geomspace(SMALLEST_RADIUS, size / 2, SHAPES)
    transparency, shading = zip(*(leaf(rng, r, size) for r in radius), strict=True)
    extent = np.array([s.shape for s in shading])
    texture = np.stack([light_field(rng, 2 * size) for _ in range(TEXTURES)])
    noise = rng.standard_normal((3, 2 * size, 2 * size), dtype=np.float32)
    return Bank(radius, extent, list(transparency), list(shading), texture, noise)


def leaf(rng: np.random.Generator, radius: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """1 - a and a s of one shape, in its bounding box; it has about the area of a disc of this radius."""
    aspect = np.exp(rng.exponential(0.5))
    reach = min(int(2 * radius * aspect**0.5) + 2, size)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    u = (x * np.cos(turn) + y * np.sin(turn)) / aspect**0.5
    v = (y * np.cos(turn) - x * np.sin(turn)) * aspect**0.5
    distance = np.hypot(u, v)
    edge = radius * outline(rng, np.arctan2(v, u))
    opacity = np.clip(0.5 + (edge - distance) / (0.6 + rng.exponential(0.1)), 0, 1)
    slope, bulge = rng.normal(0, 0.25, 2) / radius, rng.exponential(0.15)
    shading = np.clip(np.exp(slope[0] * x + slope[1] * y - bulge * (distance / radius) ** 2), 0.2, 1.6)
    rows, columns = (np.flatnonzero(opacity.any(axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return (1 - opacity)[box].astype(np.float32), (opacity * shading)[box].astype(np.float32)


def outline(rng: np.random.Generator, angle: np.ndarray) -> np.ndarray:
    """Distance from the centre to the edge at each angle, near 1: an ellipse, a polygon or a smooth blob."""
    kind = rng.choice(["ellipse", "polygon", "blob"])
    if kind == "ellipse":
        return np.ones_like(angle)
    if kind == "polygon":
        sector = 2 * np.pi / rng.choice([3, 4, 4, 4, 5, 6])
        return np.asarray(1.15 * np.cos(sector / 2) / np.cos(angle % sector - sector / 2))
    waves = np.arange(2, 8)[:, None, None]
    height, phase = rng.normal(0, 0.35, waves.shape) / waves, rng.uniform(0, 2 * np.pi, waves.shape)
    return np.asarray(np.exp((height * np.cos(waves * angle + phase)).sum(0)))


def light_field(rng: np.random.Generator, size: int) -> np.ndarray:
    """A texture to multiply a colour with: 1/f noise stretched along a direction, or wavy stripes."""
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.exponential(0.7))
    f = np.fft.fftfreq(size)
    along, across = f[:, None] * np.cos(turn) + f * np.sin(turn), f * np.cos(turn) - f[:, None] * np.sin(turn)
    amplitude = (np.hypot(along, stretch * across) + 1 / size) ** -rng.uniform(0.4, 1.5)
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * amplitude).real
    noise /= noise.std()
    if rng.random() < 0.15:
        y, x = np.mgrid[:size, :size]
        period = np.exp(rng.uniform(np.log(3), np.log(16)))
        noise = np.sin(2 * np.pi / period * (x * np.cos(turn) + y * np.sin(turn)) + noise)
    return np.exp(0.3 * rng.random() ** 2 * noise).astype(np.float32)


def materials(rng: np.random.Generator) -> np.ndarray:
    """Colours of a scene, float32 (MATERIALS, 3), about a brightness, tint and saturation of its own."""
    spread = COLOUR_SPREAD * [1, *[np.exp(rng.normal(-0.1, 0.7))] * 2]
    centre = rng.normal([0.52, 0.03, 0], [0.05, *0.6 * spread[1:]])
    colour = np.clip((centre + rng.normal(0, spread, (MATERIALS, 3))) @ COLOUR_AXES, 0.02, 1)
    if rng.random() < BLOWN_OUT:
        colour[rng.integers(4)] = np.exp(rng.uniform(0.15, 0.65))
    return np.asarray(colour, np.float32)


def scatter(rng: np.random.Generator, bank: Bank, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Shapes of a scene, by p(r) ~ r^-3 from an r_min of its own, and their first corners (number, 2)."""
    first = rng.integers(0, int(0.4 * SHAPES))
    # The radii of the bank are log-uniform, p(r) ~ 1/r: odds of r^-2 make it r^-3.
    odds = np.cumsum(bank.radius[first:] ** -2)
    mean_area = np.pi * len(odds) / odds[-1]
    number = int(rng.uniform(0.2, 2.2) * size**2 / mean_area) + 4
    shape = first + np.searchsorted(odds, odds[-1] * rng.random(number))
    centre = rng.normal(0.5, 0.1, 2) + rng.uniform(0.3, 0.8) * rng.uniform(-1, 1, (number, 2))
    extent = bank.extent[shape]
    corner = (size * centre).astype(int) - extent // 2
    seen = ((corner < size) & (corner + extent > 0)).all(1)
    return shape[seen], corner[seen]


def paint(rng: np.random.Generator, bank: Bank) -> np.ndarray:
    """A scene, float32 (3, size, size): a ground and the leaves upon it."""
    size = bank.texture.shape[-1] // 2
    colours, surface = materials(rng), rng.integers(0, TEXTURES, MATERIALS)
    canvas: np.ndarray = colours[0, :, None, None] * bank.texture[surface[0], :size, :size]
    shape, corner = scatter(rng, bank, size)
    low, high = np.maximum(corner, 0), np.minimum(corner + bank.extent[shape], size)
    start = rng.integers(0, size, low.shape)
    regions = boxes(low, high), boxes(low - corner, high - corner), boxes(start, start + high - low)
    material = rng.integers(0, MATERIALS, len(shape))
    brightness = np.exp(rng.normal(0, 0.15, (len(shape), 1))).astype(np.float32)
    colour = (colours[material] * brightness)[..., None, None]
    for k, t, c, (y, x), part, crop in zip(shape, surface[material], colour, *regions, strict=True):
        picture = canvas[:, y, x]
        picture *= bank.transparency[k][part]
        picture += bank.shading[k][part] * bank.texture[t][crop] * c
    return canvas


def boxes(low: np.ndarray, high: np.ndarray) -> list[tuple[slice, slice]]:
    """Index of each rectangle, given its first corner and the one past its last."""
    corners = zip(low.tolist(), high.tolist(), strict=True)
    return [(slice(y0, y1), slice(x0, x1)) for (y0, x0), (y1, x1) in corners]


def develop(rng: np.random.Generator, scene: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The camera: uneven light, a slight blur, noise and a response y = x - 4/27 x^3, level at white."""
    size = scene.shape[-1]
    light = np.exp(np.outer(rng.normal(0, 0.15, 2), np.linspace(-1, 1, size))).astype(np.float32)
    scene = scene * light[0][:, None] * light[1]
    blur = np.float32(rng.uniform(0, 0.05))
    for axis in (1, 2):
        x = scene.swapaxes(axis, 2)
        x[..., 1:-1] += blur * (x[..., 2:] + x[..., :-2] - 2 * x[..., 1:-1])
    y, x = rng.integers(0, size, 2)
    scene += noise[:, y : y + size, x : x + size] * np.float32(0.004 + rng.exponential(0.01))
    scene = np.clip(scene, 0, 1.5)
    return ((scene - 4 / 27 * scene**3) * 255 + 0.5).astype(np.uint8)
