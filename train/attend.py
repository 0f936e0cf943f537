"""``python -m train attend RUN IMAGE...``: draws the attention of a trained network on one's own images."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .data.picture import read_picture
from .data.source import PATCH
from .look.observe import load_run
from .look.picture import Caption, draw, look
from .tasks.patch import Patches, painted
from .text import printable

MOST = 64  # images in one picture
PICTURE = "attend.png"
FORMATS = (".png", ".jpg", ".webp", ".pdf", ".svg")


def main(argv: Sequence[str]) -> int:
    """Draws the picture and prints the predictions; returns 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m train attend",
        description="Draws images beside the maps of a trained network: the attended map, the class activation map "
        "and its attention.",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a finished run")
    add("image", metavar="IMAGE", nargs="+", help="any format and size; the central square is resized to the network's")
    add("--patch", metavar=("ROW", "COLUMN"), nargs=2, type=int, help="paint a white patch with this upper left corner")
    add("--out", metavar="FILE", help=f"the picture (default: RUN/{PICTURE}); overwritten if it exists")
    options = parser.parse_args(argv)
    try:
        lines = attend(options.run, options.image, options.out, options.patch)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def attend(run: str, images: Sequence[str], out: str | None = None, corner: Sequence[int] | None = None) -> list[str]:
    """Draws images and the maps of a run's network, with a white patch at ``corner`` if one is given."""
    path = Path(run) / PICTURE if out is None else _check_out(Path(out))
    if len(images) > MOST:
        raise ValueError(f"IMAGE must be at most {MOST} images, got {len(images)}")
    trained = load_run(run)
    photos = read_photos(images, trained.height, trained.width)
    x = np.asarray(painted(photos, _patches(corner, photos)))
    p, columns = look(trained.network, x)
    shown = list(zip(map(printable, images), p, strict=True))
    captions = [Caption(f"{_short(Path(name).name)}\np = {each:.3f}") for name, each in shown]
    draw(path, f"{trained.config.network} of {run}", x, captions, columns)
    return [*(f"{name}: p = {each:.4f}" for name, each in shown), printable(path)]


def read_photos(paths: Sequence[str], height: int, width: int) -> np.ndarray:
    """Reads images of any format and size as uint8 (n, height, width, 3); an error names all that are unreadable."""
    images, problems = [], []
    for path in paths:
        try:
            images.append(read_picture(Path(path), height, width))
        except ValueError as error:
            problems.append(f"{printable(path)}: {error}")
    if problems:
        raise ValueError("IMAGE must be a readable image, got " + "; ".join(problems))
    return np.stack(images)


def _check_out(path: Path) -> Path:
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--out must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got {path}")
    if path.is_dir():
        raise ValueError(f"--out must be a file, got the folder {path}")
    if not path.parent.is_dir():
        raise ValueError(f"--out must be in a folder that exists, got {path}")
    return path


def _patches(corner: Sequence[int] | None, photos: np.ndarray) -> Patches:
    if corner is None:
        return Patches(*np.zeros((3, len(photos)), np.int32))
    row, column = corner
    last_row, last_column = (length - PATCH for length in photos.shape[1:3])
    if not (0 <= row <= last_row and 0 <= column <= last_column):
        raise ValueError(f"--patch must have its corner between 0 0 and {last_row} {last_column}, got {row} {column}")
    return Patches(*np.full((len(photos), 3), [1, row, column], np.int32).T)


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:13]}…{name[-13:]}"
