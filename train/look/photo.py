"""A user's picture as the network's input."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# Whatever Pillow raises on files that are damaged, of no known format, or absurdly large.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError)


def read_photos(paths: list[str], height: int, width: int) -> np.ndarray:
    """Reads images of any common format and size as uint8 (n, height, width, 3).

    Raises:
        ValueError: some cannot be read; all of them are named.
    """
    images, problems = [], []
    for path in paths:
        try:
            images.append(read_photo(path, height, width))
        except _DAMAGE as error:
            problems.append(f"{path}: {_reason(path, error)}")
    if problems:
        raise ValueError("IMAGE must be a readable image, got " + "; ".join(problems))
    return np.stack(images)


def read_photo(path: str | Path, height: int, width: int) -> np.ndarray:
    """The largest centred part of an image with the wanted proportions, upright, resized: uint8 (height, width, 3)."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(_eight_bits(image))
        opaque = _on_white(upright) if upright.has_transparency_data else upright
        fitted = ImageOps.fit(opaque.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def _eight_bits(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I;16"):
        return image
    grey = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))  # Pillow would clip at 255
    grey.info = image.info
    return grey


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _reason(path: str, error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if os.path.isdir(path):
        return "a folder"
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image format that is known"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
