"""``python -m train attend RUN IMAGE...``: draws the attention of a trained network on one's own images."""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.special import softmax

from .config import PatchConfig
from .data.folder import find_files
from .data.picture import read_picture
from .data.source import PATCH
from .look.grid import Caption
from .look.observe import load_run
from .look.picture import draw_images, look
from .look.places import draw_places, see
from .plots import save
from .runs import DATA, read_json
from .tasks.patch import Patches, painted
from .text import printable

PAGE = 12  # images in one picture
LONGEST = 26  # letters of a name in it, the last ones
PICTURE = "attend.png"

Answer = tuple[str, ...]  # a row of the table


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
    add(
        "--patch",
        metavar=("ROW", "COLUMN"),
        nargs=2,
        type=int,
        help="paint a white patch with this upper left corner, for the task patch",
    )
    add("--out", metavar="FILE", help=f"the picture (default: RUN/{PICTURE}), numbered if there are several")
    options = parser.parse_args(argv)
    print("\n".join(attend(options.run, options.image, options.out, options.patch)))
    return 0


def attend(run: str, images: Sequence[str], out: str | None = None, corner: Sequence[int] | None = None) -> list[str]:
    """Draws images and the maps of a run's network, with a white patch at ``corner`` if one is given."""
    path = Path(run) / PICTURE if out is None else Path(out)
    config, network, size = load_run(run)
    names, photos = read_photos(images, *size)
    head: Answer
    draw_page: Callable[..., tuple[list[Answer], Figure]]
    if isinstance(config, PatchConfig):
        x, head, draw_page = np.asarray(painted(photos, _patches(corner, photos))), ("image", "p"), _patch_page
    elif corner is None:
        classes = read_json(Path(run) / DATA)["classes"]
        x, head, draw_page = photos, ("image", "class", "p"), partial(_classes_page, classes)
    else:
        raise ValueError(f"--patch needs a run of --task patch, got one of --task {config.task}")
    rows: list[Answer] = [head]
    written = []
    for start in range(0, len(x), PAGE):
        here = names[start : start + PAGE]
        shown = [Path(name).name[-LONGEST:] for name in here]
        answers, figure = draw_page(f"{config.title} of {run}", network, x[start : start + PAGE], shown)
        page = path if len(x) <= PAGE else path.with_stem(f"{path.stem}-{start // PAGE + 1}")
        save(figure, page)
        rows += [(name, *answer) for name, answer in zip(here, answers, strict=True)]
        written.append(page)
    table = path.with_suffix(".csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    lines = [f"{name}: {', '.join([*said, f'p = {p}'])}" for name, *said, p in rows[1:]]
    return [*lines, *map(printable, [*written, table])]


def _patch_page(title: str, network: Any, x: np.ndarray, names: list[str]) -> tuple[list[Answer], Figure]:
    looked = look(network, x)
    answers = [f"{p:.4f}" for p in looked.p]
    captions = [Caption(f"{name}\np = {p}") for name, p in zip(names, answers, strict=True)]
    return [(p,) for p in answers], draw_images(title, x, captions, looked)


def _classes_page(
    classes: list[str], title: str, network: Any, images: np.ndarray, names: list[str]
) -> tuple[list[Answer], Figure]:
    seen = see(network, images)
    largest = softmax(seen.logits, axis=-1).max(-1)
    answers = [(classes[k], f"{p:.4f}") for k, p in zip(seen.logits.argmax(-1), largest, strict=True)]
    captions = [Caption(f"{name}\n{k}, p = {p}") for name, (k, p) in zip(names, answers, strict=True)]
    return [*answers], draw_places(title, images, captions, seen)


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
    if corner is None:
        return Patches(*np.zeros((3, len(photos)), np.int32))
    row, column = corner
    last_row, last_column = (length - PATCH for length in photos.shape[1:3])
    if not (0 <= row <= last_row and 0 <= column <= last_column):
        raise ValueError(f"--patch must have its corner between 0 0 and {last_row} {last_column}, got {row} {column}")
    return Patches(*np.full((len(photos), 3), [1, row, column], np.int32).T)
