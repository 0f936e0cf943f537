"""Images from an ``.npz`` archive: an array, or concatenated JPEG files.

Either ``images``, uint8 (n, h, w, 3); or ``jpeg``, a uint8 array of JPEG files one after the other, with ``offset``,
n + 1 integers: image i is ``jpeg[offset[i]:offset[i + 1]]``.
"""

import io
import os
import zipfile
from itertools import pairwise

import numpy as np
from PIL import Image

from ..text import first_line, printable
from .source import Source


def read_npz(path: str) -> Source:
    """Reads the images of an archive."""
    name = printable(f"npz:{path}")
    arrays = load_arrays(path, {"images"}, {"jpeg", "offset"})
    return Source(name, arrays["images"] if "images" in arrays else _decode_all(name, **arrays))


def load_arrays(path: str, *choices: set[str]) -> dict[str, np.ndarray]:
    """Reads the first choice of arrays that an archive holds completely; others, maybe pickled, are left alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged archive, one of other arrays, or anything but plain arrays.
    """
    name = printable(f"npz:{path}")
    try:
        with open(os.path.expanduser(path), "rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("a file that is truncated or of another kind")
            archive = np.load(file, allow_pickle=False)  # pickles could run code
            names = next((names for names in choices if names <= set(archive.files)), set())
            arrays = {key: archive[key] for key in names}
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such file") from None
    except Exception as error:  # numpy and zipfile raise many types for archives that are damaged or of another kind
        raise ValueError(
            f"{name}: a readable .npz archive of plain arrays is needed, got: {first_line(error)}"
        ) from error
    if not arrays:
        wanted, held = (" and ".join(sorted(names)) for names in (choices[-1], archive.files))
        wanted = "images, or " * (len(choices) > 1) + wanted
        raise ValueError(f"{name}: the archive must hold {wanted}, got {held or 'nothing'}")
    return arrays


def _decode_all(name: str, jpeg: np.ndarray, offset: np.ndarray) -> np.ndarray:
    whole = jpeg.dtype == np.uint8 and offset.dtype.kind in "iu" and jpeg.ndim == offset.ndim == 1 < len(offset)
    if not whole or offset[0] < 0 or offset[-1] > len(jpeg) or (offset[1:] <= offset[:-1]).any():
        raise ValueError(
            f"{name}: jpeg must be uint8 (bytes,), and offset n + 1 integers that increase within [0, bytes], "
            f"got jpeg {jpeg.dtype} {jpeg.shape} and offset {offset.dtype} {offset.shape}"
        )
    images = np.empty(0)
    for i, (start, stop) in enumerate(pairwise(offset)):
        try:
            with Image.open(io.BytesIO(jpeg[start:stop].tobytes()), formats=["JPEG"]) as file:
                image = np.asarray(file.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{name}: image {i} must be a JPEG file, got bytes that do not decode") from error
        images = images if i else np.empty((len(offset) - 1, *image.shape), np.uint8)
        if image.shape != (first := images.shape[1:]):
            raise ValueError(f"{name}: all images must have the shape of the first, {first}, got {image.shape} for {i}")
        images[i] = image
    return images
