"""``python -m train attend RUN IMAGE...``: draws the attention of a trained network on one's own images."""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax

from .config import PatchConfig
from .data.folder import find_files
from .data.picture import read_picture
from .data.source import PATCH
from .look.grid import Caption
from .look.observe import load_run
from .look.picture import draw_images, look, see
from .plots import save
from .runs import DATA, read_json
from .tasks.patch import Patches, painted
from .text import printable

PAGE = 12  # images in one picture
LONGEST = 26  # letters of a name in it, the last ones
PICTURE = "attend.png"


def main(argv: Sequence[str]) -> int:
    """Draws the pictures and prints the predictions."""
    parser = argparse.ArgumentParser(
        prog="python -m train attend",
        description="Draws images and the maps of a trained network: the class activation map, the attended map and "
        "its attention, and spatial gates. The predictions go into a CSV file beside the picture.",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a finished run")
    add("image", metavar="IMAGE", nargs="+", help="an image, whose central square is taken, or a folder of images")
    white = "paint a white patch with this upper left corner, for the task patch"
    add("--patch", metavar=("ROW", "COLUMN"), nargs=2, type=int, help=white)
    add("--out", metavar="FILE", help=f"the picture (default: RUN/{PICTURE}), numbered if there are several")
    options = parser.parse_args(argv)
    print("\n".join(attend(options.run, options.image, options.out, options.patch)))
    return 0


def attend(run: str, images: Sequence[str], out: str | None = None, corner: Sequence[int] | None = None) -> list[str]:
    """Draws images and the maps of a run's network, with a white patch at ``corner`` if one is given."""
    path = Path(run) / PICTURE if out is None else Path(out)
    config, network, size = load_run(run)
    names, x = read_photos(images, *size)
    if isinstance(config, PatchConfig):
        x, columns, look_at = np.asarray(painted(x, _patches(corner, x))), ["p"], look
    elif corner is None:
        columns, look_at = ["class", "p"], see
    else:
        raise ValueError(f"--patch needs a run of --task patch, got one of --task {config.task}")
    rows, lines, written = [["image", *columns]], [], []
    for start in range(0, len(x), PAGE):
        here, shown = names[start : start + PAGE], x[start : start + PAGE]
        looked = look_at(network, shown)
        cells = answers(looked.answer, read_json(Path(run) / DATA).get("classes", []))
        told = [", ".join([*words, f"p = {p}"]) for *words, p in cells]
        captions = [Caption(f"{Path(name).name[-LONGEST:]}\n{text}") for name, text in zip(here, told, strict=True)]
        page = path if len(x) <= PAGE else path.with_stem(f"{path.stem}-{start // PAGE + 1}")
        save(draw_images(f"{config.title} of {run}", shown, captions, looked), page)
        rows += [[name, *words] for name, words in zip(here, cells, strict=True)]
        lines += [f"{name}: {text}" for name, text in zip(here, told, strict=True)]
        written.append(page)
    table = path.with_suffix(".csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return [*lines, *map(printable, [*written, table])]


def answers(found: np.ndarray, classes: list[str]) -> list[list[str]]:
    """The probability of a patch in each image, or the class predicted, from logits (b, classes), and its one."""
    if found.ndim == 1:
        return [[f"{p:.4f}"] for p in found]
    largest = softmax(found, axis=-1).max(-1)
    return [[classes[k], f"{p:.4f}"] for k, p in zip(found.argmax(-1), largest, strict=True)]


def read_photos(paths: Sequence[str], height: int, width: int) -> tuple[list[str], np.ndarray]:
    """Reads images, and those in folders, as uint8 (n, height, width, 3); names on stderr those that are left out."""
    names, images, left_out = [], [], []
    for path in map(Path, paths):
        files, unread = find_files(path) if path.is_dir() else ([path], [])
        left_out += [f"{printable(path)}: {name}" for name in unread or ([] if files else ["an empty folder"])]
        for file in files:
            try:
                images.append(read_picture(file, height, width))
                names.append(printable(file))
            except ValueError as error:
                left_out.append(f"{printable(file)}: {error}")
    if not images:
        raise ValueError(f"IMAGE must be a readable image, got {'; '.join(left_out)}")
    if left_out:
        print(f"left out: {'; '.join(left_out)}", file=sys.stderr)
    return names, np.stack(images)


def _patches(corner: Sequence[int] | None, photos: np.ndarray) -> Patches:
    row, column = corner or (0, 0)
    last_row, last_column = (length - PATCH for length in photos.shape[1:3])
    if not (0 <= row <= last_row and 0 <= column <= last_column):
        raise ValueError(f"--patch must have its corner between 0 0 and {last_row} {last_column}, got {row} {column}")
    return Patches(*np.full((len(photos), 3), [corner is not None, row, column], np.int32).T)
