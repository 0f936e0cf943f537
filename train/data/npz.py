"""Images from an ``.npz`` archive: an array, or JPEG files end to end.

Either ``images``, uint8 (n, h, w, 3); or ``jpeg``, a uint8 array of JPEG files one after the other, with ``offset``,
n + 1 integers: image i is ``jpeg[offset[i]:offset[i + 1]]``.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from PIL import Image

from ..text import printable
from .source import Source

# Whatever numpy and zipfile raise on archives that are damaged, of another kind, or compressed by other means.
_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def read_npz(path: str) -> Source:
    """Reads the images of an archive.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged archive, missing or wrongly shaped arrays, a JPEG that does not decode.
    """
    name = printable(f"npz:{path}")
    arrays = load_arrays(name, path, {"images"}, {"jpeg", "offset"})
    if "images" in arrays:
        return Source(name, arrays["images"])
    if "jpeg" not in arrays or "offset" not in arrays:
        held = ", ".join(arrays) or "nothing"
        raise ValueError(f"{name}: the archive must hold images, or jpeg and offset, got {held}")
    return Source(name, _decode_all(name, arrays["jpeg"], arrays["offset"]))


def load_arrays(name: str, path: str, *choices: set[str]) -> dict[str, np.ndarray]:
    """Reads one of the choices of arrays, the first that the archive has, or of the last one what it has.

    Other arrays are not looked into, and come out empty: some archives hold pickled extras.

    Args:
        name: what messages call it.
        path: of the archive; ``~`` is the home folder.
        *choices: names of arrays.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged archive, or one of anything but plain arrays.
    """
    try:
        path = os.path.expanduser(path)
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("a file that is cut off or of another kind")
        # Pickled objects could run code; numpy refuses them unless told otherwise.
        with np.load(path, allow_pickle=False) as archive:
            wanted = next((names for names in choices if names <= set(archive.files)), choices[-1])
            return {key: archive[key] if key in wanted else np.empty(0) for key in archive.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such file") from None
    except _DAMAGE as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{name}: a readable .npz archive of plain arrays is needed, got: {problem}") from error


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
    decoded = _decode(name, jpeg, offset)
    first = next(decoded)
    images = np.empty((len(offset) - 1, *first.shape), np.uint8)
    images[0] = first
    for i, image in enumerate(decoded, start=1):
        if image.shape != first.shape:
            raise ValueError(
                f"{name}: all images must have the size of the first, {_size(first)}; image {i} is {_size(image)}"
            )
        images[i] = image
    return images


def _decode(name: str, jpeg: np.ndarray, offset: np.ndarray) -> Iterator[np.ndarray]:
    for i, (start, stop) in enumerate(pairwise(offset)):
        try:
            with Image.open(io.BytesIO(jpeg[start:stop].tobytes()), formats=["JPEG"]) as image:
                yield np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{name}: image {i} must be a JPEG file, got bytes that do not decode") from error


def _size(image: np.ndarray) -> str:
    return "x".join(map(str, image.shape[:2]))
