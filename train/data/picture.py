"""One image file of any common format and size, as a small RGB image."""

import os
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..text import first_line
from .source import PATCH

SIZE = 96  # as in STL-10 and the tutorial

# Room for a 200-megapixel camera: Pillow warns above its limit and refuses twice that, since a file of a few kilobytes
# can claim any size.
MOST_PIXELS = 2**28
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
GREY = (128, 128, 128, 255)  # behind transparent parts: white could be taken for a patch
REASONS = {
    FileNotFoundError: "no such file",
    IsADirectoryError: "a folder",
    UnidentifiedImageError: "not an image of a known format",
    Image.DecompressionBombError: f"more than {MOST_PIXELS / 1e6:.0f} megapixels",
}
BITS, HIGHEST = 258, 281  # TIFF's tags for the bits of a value, and for the largest


def read_picture(path: Path, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Decodes an image, upright by its EXIF data: its centre, resized, as uint8 (height, width, 3).

    Transparent parts become grey, 16-bit values are scaled from the range that the file declares, animations show their
    first frame. Pillow's bilinear filter averages when shrinking and, unlike bicubic or Lanczos, makes nothing brighter
    than it was: the patch task depends on what is white.

    Raises:
        ValueError: not a readable image, one with pixels of unknown range, or with a side shorter than 16 pixels.
    """
    try:
        return _read(path, height, width)
    except Exception as error:  # Pillow raises many types of exceptions for damaged files
        raise ValueError(REASONS.get(type(error)) or first_line(error)) from error


def _read(path: Path, height: int, width: int) -> np.ndarray:
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # opening a pipe would wait for its writer
        raise ValueError("not a regular file")
    with Image.open(path) as image:
        if image.format == "EPS":
            raise ValueError("a format that Pillow reads by running another program")
        if min(image.size) < PATCH:
            raise ValueError(f"{image.width}x{image.height} pixels, smaller than {PATCH}x{PATCH}")
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            raise ValueError("pixels of unknown range: floating-point, signed, or wider than 16 bits")
        tags = getattr(image, "tag_v2", {})
        widest = 2 ** int(np.max(tags.get(BITS, 16))) - 1
        highest = int(np.max(tags.get(HIGHEST, 0))) or widest  # of a greyscale image; some programs write 0
        longest = 2 * max(height, width)
        image.draft(None, (longest, longest))  # decodes a JPEG no larger than needed
        upright = ImageOps.exif_transpose(image)
    scale = min(upright.height / height, upright.width / width)
    kept_width, kept_height = round(scale * width), round(scale * height)
    left, top = (upright.width - kept_width) // 2, (upright.height - kept_height) // 2
    centre = _to_rgb(upright.crop((left, top, left + kept_width, top + kept_height)), highest)
    return np.asarray(centre.resize((width, height), Image.Resampling.BILINEAR))


def _to_rgb(image: Image.Image, highest: int) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, in some formats stored in 32; convert() would clip them at 255
        values = np.asarray(image).astype(np.int64).clip(0, highest)
        return Image.fromarray((values * 256 // (highest + 1)).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, GREY)
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert("RGB")
