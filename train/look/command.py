"""``python -m train attend RUN IMAGE...``: what a trained network makes of one's own images."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.source import PATCH
from ..tasks.patch import Patches
from ..text import printable
from .columns import look
from .load import load_run
from .photo import read_photos
from .picture import Caption, draw
from .places import painted

MOST = 64  # images in one picture
PICTURE = "attend.png"
FORMATS = (".png", ".jpg", ".webp", ".pdf", ".svg")


def main(argv: Sequence[str]) -> int:
    """Draws the picture, says where it is and what the network thinks; returns 0, or 2 for bad input."""
    options = _parser().parse_args(argv)
    try:
        path, lines = attend(options.run, options.image, options.out, options.patch)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join([*lines, printable(path)]))
    return 0


def attend(
    run: str, images: Sequence[str], out: str | None = None, patch: Sequence[int] | None = None
) -> tuple[Path, list[str]]:
    """Draws ``images`` and what the network of ``run`` makes of them.

    Args:
        run: the folder of a finished run of the patch task.
        images: of any format and size.
        out: the picture, ``attend.png`` in ``run`` by default.
        patch: row and column of the corner of a white patch, or None for the images as they are.

    Returns:
        Where the picture is, and a line per image.

    Raises:
        ValueError: an image that cannot be read, too many, a run that cannot be used, no place for the picture.
        FileNotFoundError: no such run.
    """
    path = Path(run) / PICTURE if out is None else _picture(Path(out))
    if len(images) > MOST:
        raise ValueError(f"IMAGE... must be at most {MOST} for one picture, got {len(images)}")
    trained = load_run(run)
    photos = read_photos(list(images), trained.height, trained.width)
    x = np.asarray(painted(photos, _patches(patch, photos)))
    p, columns = look(trained.network, x)
    captions = [
        Caption(f"{_short(printable(Path(name).name))}\np = {each:.3f}") for name, each in zip(images, p, strict=True)
    ]
    draw(path, _title(trained.config.network, run), x, captions, columns)
    return path, [f"{printable(name)}: p = {each:.4f}" for name, each in zip(images, p, strict=True)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train attend",
        description="Draws images beside the maps of a trained network: the attended map, the class activation map, "
        "and where its attention looks.",
    )
    parser.add_argument("run", metavar="RUN", help="the folder of a finished run")
    parser.add_argument(
        "image", metavar="IMAGE", nargs="+", help="any format and size; the centre is cut out and resized"
    )
    parser.add_argument(
        "--patch", metavar=("ROW", "COLUMN"), nargs=2, type=int, help="paint a white patch with this upper left corner"
    )
    parser.add_argument("--out", metavar="FILE", help=f"the picture; RUN/{PICTURE} by default, which is overwritten")
    return parser


def _picture(path: Path) -> Path:
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--out must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got {path}")
    if path.is_dir():
        raise ValueError(f"--out must be a file, got the folder {path}")
    if not path.parent.is_dir():
        raise ValueError(f"--out must lie in a folder that exists, got {path}")
    return path


def _patches(corner: Sequence[int] | None, photos: np.ndarray) -> Patches:
    if corner is None:
        return Patches(*np.zeros((3, len(photos)), np.int32))
    most = tuple(length - PATCH for length in photos.shape[1:3])
    if not all(0 <= place <= last for place, last in zip(corner, most, strict=True)):
        raise ValueError(
            f"--patch must lie in the image, its corner from 0 0 to {most[0]} {most[1]}, got {corner[0]} {corner[1]}"
        )
    return Patches(*np.full((len(photos), 3), [1, *corner], np.int32).T)


def _title(network: str, run: str) -> str:
    return f"{network} of {printable(run)}"


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2) :]}"
