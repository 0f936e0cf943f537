"""One image file, whatever its format and size, as a small image in RGB."""

import os
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .source import PATCH

SIZE = 96  # STL-10's, the tutorial's

# What cameras, phones, scanners and drawing programs write. Formats that run another program to be read (EPS) or hold
# no picture as such (PDF, HDF5, MPEG) are left out.
FORMATS = (
    *("JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "ICNS"),
    *("PSD", "PCX", "SGI", "QOI", "DDS"),
)
# A 200-megapixel camera's are within it. Pillow warns of half of that, and refuses what is larger: files of a few
# kilobytes can claim to be images of any size.
MOST_PIXELS = 2**28
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
GREY = (128, 128, 128, 255)  # what shows through: 0 to the network, where white could be taken for a patch


class TooSmallError(ValueError):
    """An image with fewer pixels along a side than a patch has."""


def read_picture(path: Path, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Decodes an image: turned as its EXIF data say, in RGB, its centre of the wanted proportions resized.

    Transparent parts show grey, 16-bit values lose their lower half, animations show their first frame. The filter is
    Pillow's bilinear one, which averages when it makes smaller: unlike bicubic or Lanczos it makes nothing brighter
    than it was, and what is white decides the patch task.

    Returns:
        uint8 (height, width, 3).

    Raises:
        TooSmallError: a side shorter than 16 pixels.
        ValueError: not an image that can be read, and why.
    """
    try:
        return _read(path, height, width)
    except TooSmallError:
        raise
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except IsADirectoryError:
        raise ValueError("a folder") from None
    except Image.UnidentifiedImageError:
        raise ValueError("not an image of a known format") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MOST_PIXELS / 1e6:.0f} megapixels") from None
    except Exception as error:  # decoders raise all sorts of things at damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(reason) from error


def _read(path: Path, height: int, width: int) -> np.ndarray:
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # to open a pipe would wait for whoever writes to it
        raise ValueError("not a regular file")
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]  # what this Pillow was built with
    with Image.open(path, formats=known) as image:
        if min(image.size) < PATCH:
            raise TooSmallError(f"{image.width}x{image.height} pixels")
        longest = 2 * max(height, width)
        image.draft(None, (longest, longest))  # a JPEG is decoded no larger than this needs
        upright = ImageOps.exif_transpose(image)
    scale = min(upright.height / height, upright.width / width)
    kept_width, kept_height = round(scale * width), round(scale * height)
    left, top = (upright.width - kept_width) // 2, (upright.height - kept_height) // 2
    centre = _to_rgb(upright.crop((left, top, left + kept_width, top + kept_height)))
    return np.asarray(centre.resize((width, height), Image.Resampling.BILINEAR))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, also where Pillow keeps them in 32; it would cut them off at 255
        return Image.fromarray((np.asarray(image).clip(0, 2**16 - 1) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range nobody knows")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, GREY)
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert("RGB")
