"""Dead-leaves images: a photograph-like data set drawn from a seed, with nothing to download.

Objects that occlude one another, with sizes spread over all scales, give images the statistics of photographs: a
power-law spectrum, sparse gradients, sharp edges. The model is Matheron's ("Modèle séquentiel de partition aléatoire",
1968) as fitted to photographs by Lee, Mumford & Huang ("Occlusion models for natural images", 2001); Baradad et al.
("Learning to see by looking at noise", 2021) train networks on it. Elliptic leaves with radii p(r) ~ r^-3 are painted
over one another, each in a colour of the scene times a texture of 1/f noise. Colours are Gaussian along luminance and
two opponent axes, nearly uncorrelated in photographs (Ruderman, Cronin & Chiao, 1998). A few scenes hold a blown-out
material: near-white grounds and highlights of all sizes, about as frequent as in photographs.
"""

import numpy as np

# These numbers and those below are fitted by hand to 96x96 photographs: to the brightness, contrast, channel
# correlation, power spectrum, gradients and near-white 16x16 windows of 5,000 of them.
TEXTURES = 64
MATERIALS = 8
LEAVES = (20, 160)  # the fewest and most of a scene
SMALLEST = 0.03  # radius, of the image's side
BLOWN_OUT = 0.07  # share of the scenes

# Luminance, red-blue, green-magenta: the principal axes of RGB in photographs, and the spread within a scene.
COLOUR_AXES = np.array([[1, 1, 1], [1, 0, -1], [-0.5, 1, -0.5]])
COLOUR_SPREAD = np.array([0.37, 0.1, 0.045])


def synthetic_images(count: int = 5000, *, seed: int = 0, size: int = 96) -> np.ndarray:
    """Draws uint8 images (count, size, size, 3); image i depends on `seed`, `size` and i alone."""
    rng = np.random.default_rng(seed)
    textures = np.stack([texture(rng, 2 * size) for _ in range(TEXTURES)])
    return np.array([scene(each, textures) for each in rng.spawn(count)])


def texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A field (size, size) to multiply a colour with: 1/f noise, stretched along a direction."""
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.exponential(0.7))
    f = np.fft.fftfreq(size)
    along, across = f[:, None] * np.cos(turn) + f * np.sin(turn), f * np.cos(turn) - f[:, None] * np.sin(turn)
    amplitude = (np.hypot(along, stretch * across) + 1 / size) ** -rng.uniform(0.4, 1.5)
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * amplitude).real
    return np.asarray(np.exp(0.3 * rng.random() ** 2 * noise / noise.std()), np.float32)


def materials(rng: np.random.Generator) -> np.ndarray:
    """Colours of a scene, float32 (MATERIALS, 3), about a brightness, tint and saturation of its own."""
    spread = COLOUR_SPREAD * [1, *[np.exp(rng.normal(-0.1, 0.7))] * 2]
    centre = rng.normal([0.52, 0.03, 0], [0.05, *0.6 * spread[1:]])
    colour = np.clip((centre + rng.normal(0, spread, (MATERIALS, 3))) @ COLOUR_AXES, 0.02, 1)
    if rng.random() < BLOWN_OUT:
        colour[rng.integers(4)] = np.exp(rng.uniform(0.15, 0.65))
    return np.asarray(colour, np.float32)


def scene(rng: np.random.Generator, textures: np.ndarray) -> np.ndarray:
    """An image, uint8 (size, size, 3): a ground, the leaves upon it, and a camera's noise and response."""
    size = textures.shape[-1] // 2
    colours, surface = materials(rng), rng.integers(0, TEXTURES, MATERIALS)
    canvas: np.ndarray = colours[0, :, None, None] * textures[surface[0], :size, :size]
    number = int(np.exp(rng.uniform(*np.log(LEAVES))))
    radius = np.minimum(SMALLEST * size * rng.random(number) ** -0.5, size / 2)
    stretch, turn = np.exp(rng.exponential(0.25, number)), rng.uniform(0, np.pi, number)
    centre, offset = rng.integers(0, size, (2, number, 2))
    material, shade = rng.integers(0, MATERIALS, number), np.exp(rng.normal(0, 0.15, number)).astype(np.float32)
    for k, reach in enumerate((radius * stretch + 1).astype(int)):
        (top, left), (bottom, right) = np.maximum(centre[k] - reach, 0), np.minimum(centre[k] + reach + 1, size)
        y, x = np.arange(top, bottom)[:, None] - centre[k, 0], np.arange(left, right) - centre[k, 1]
        turned = (x + 1j * y) * np.exp(1j * turn[k])
        distance = np.hypot(turned.real / stretch[k], turned.imag * stretch[k])
        opacity = np.clip(0.5 + radius[k] - distance, 0, 1).astype(np.float32)
        (down, across), part = offset[k], canvas[:, top:bottom, left:right]
        leaf = textures[surface[material[k]], down + top : down + bottom, across + left : across + right]
        part += opacity * (shade[k] * colours[material[k], :, None, None] * leaf - part)
    canvas += rng.standard_normal(canvas.shape, np.float32) * np.float32(0.004 + rng.exponential(0.01))
    canvas = np.clip(canvas, 0, 1.5)
    return ((canvas - 4 / 27 * canvas**3) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)  # level at white
