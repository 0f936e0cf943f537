"""A user's pictures as the network's input, read as those that train are."""

from pathlib import Path

import numpy as np

from ..data.picture import read_picture
from ..text import printable


def read_photos(paths: list[str], height: int, width: int) -> np.ndarray:
    """Reads images of any common format and size as uint8 (n, height, width, 3).

    Raises:
        ValueError: some cannot be read; all of them are named.
    """
    images, problems = [], []
    for path in paths:
        try:
            images.append(read_picture(Path(path), height, width))
        except ValueError as error:
            problems.append(f"{printable(path)}: {error}")
    if problems:
        raise ValueError("IMAGE must be a readable image, got " + "; ".join(problems))
    return np.stack(images)
