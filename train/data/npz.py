"""Images from an ``.npz`` archive: an array, or concatenated JPEG files.

Either ``images``, uint8 (n, h, w, 3); or ``jpeg``, a uint8 array of JPEG files one after the other, with ``offset``,
n + 1 integers: image i is ``jpeg[offset[i]:offset[i + 1]]``.
"""

import io
import os
import zipfile
import zlib
from itertools import pairwise

import numpy as np
from PIL import Image

from ..text import first_line, printable
from .source import Source

# What numpy and zipfile raise for archives that are damaged, of another kind, or compressed in an unknown way.
_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def read_npz(path: str) -> Source:
    """Reads the images of an archive."""
    name = printable(f"npz:{path}")
    arrays = load_arrays(name, path, {"images"}, {"jpeg", "offset"})
    if "images" in arrays:
        return Source(name, arrays["images"])
    if not {"jpeg", "offset"} <= arrays.keys():
        held = ", ".join(arrays) or "nothing"
        raise ValueError(f"{name}: the archive must hold images, or jpeg and offset, got {held}")
    return Source(name, _decode_all(name, arrays["jpeg"], arrays["offset"]))


def load_arrays(name: str, path: str, *choices: set[str]) -> dict[str, np.ndarray]:
    """Reads the first choice of arrays that an archive holds completely, or what it holds of the last choice.

    Other arrays come out empty and unread: some archives hold pickled extras.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged archive, or anything but plain arrays.
    """
    try:
        path = os.path.expanduser(path)
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("a file that is truncated or of another kind")
        with np.load(path, allow_pickle=False) as archive:  # pickles could run code
            wanted = next((names for names in choices if names <= set(archive.files)), choices[-1])
            return {key: archive[key] if key in wanted else np.empty(0) for key in archive.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such file") from None
    except _DAMAGE as error:
        raise ValueError(
            f"{name}: a readable .npz archive of plain arrays is needed, got: {first_line(error)}"
        ) from error


def _decode_all(name: str, jpeg: np.ndarray, offset: np.ndarray) -> np.ndarray:
    if jpeg.dtype != np.uint8 or jpeg.ndim != 1:
        raise ValueError(f"{name}: jpeg must be uint8 with one axis, got {jpeg.dtype} of shape {jpeg.shape}")
    if not np.issubdtype(offset.dtype, np.integer) or offset.ndim != 1 or len(offset) < 2:
        raise ValueError(f"{name}: offset must be n + 1 integers, got {offset.dtype} of shape {offset.shape}")
    if offset[0] < 0 or offset[-1] > len(jpeg) or (offset[1:] <= offset[:-1]).any():
        raise ValueError(
            f"{name}: offset must increase within [0, {len(jpeg)}], the length of jpeg, "
            f"got values from {offset.min()} to {offset.max()}"
        )
    images = np.empty(0)
    for i, (start, stop) in enumerate(pairwise(offset)):
        image = _decode(name, i, jpeg[start:stop].tobytes())
        if i == 0:
            images = np.empty((len(offset) - 1, *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            first, other = ("x".join(map(str, shape[:2])) for shape in (images.shape[1:], image.shape))
            raise ValueError(f"{name}: all images must have the size of the first, {first}; image {i} is {other}")
        images[i] = image
    return images


def _decode(name: str, number: int, jpeg: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: image {number} must be a JPEG file, got bytes that do not decode") from error
