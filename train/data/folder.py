"""The user's own photos: every image file in a folder and the folders within it, as 96x96 squares.

Files are taken in the order of their names, numbers by value (photo2 before photo10); hidden ones are passed over.
Every file is decoded once when the folder is opened: those that cannot be read, and those smaller than a patch, are
left out and named, and so are folders that cannot be entered and links to folders, which are not followed (they may
lead back), so that nothing is missing in the middle of a run. The images of a small folder stay in memory; of
a large one the paths do, and an image is decoded again whenever it is needed.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..text import printable
from .picture import SIZE, TooSmallError, read_picture
from .source import FEWEST, PATCH, RESIDENT_BYTES, Source

NAMED = 20  # files in a note; what comes after them is counted
CHUNK = 256  # files whose images are in memory at a time while a large folder is looked through

Progress = Callable[[int, int], None]  # gets how many files have been looked at, and of how many


class Photos:
    """Images that are decoded from their files when they are asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = [os.fspath(path) for path in paths]  # workers get them by pickle: strings are half the size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        try:
            return read_picture(Path(self.paths[index]))
        except ValueError as error:
            raise ValueError(
                f"{printable(self.paths[index])} could be read at first, but no longer: {error}"
            ) from error


def read_folder(path: str, progress: Progress | None = None) -> Source:
    """Opens a folder of photos.

    Args:
        path: of the folder; ``~`` is the home folder.
        progress: told now and then how far the first look has come.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a file in place of a folder, or fewer than 5 images that can be read.
    """
    name, folder = printable(f"folder:{path}"), Path(os.path.expanduser(path))
    if not folder.exists():
        raise FileNotFoundError(f"{name}: no such folder")
    if not folder.is_dir():
        raise ValueError(f"{name}: a folder is needed, got a file")
    files, passed_over = find_files(folder)
    few = len(files) * SIZE * SIZE * 3 <= RESIDENT_BYTES
    good, images = [], []
    left_out: dict[str, list[str]] = {"cannot be read": [], f"smaller than {PATCH}x{PATCH}": []}
    unreadable, small = left_out.values()
    for file, result in _look(files, progress or (lambda done, total: None)):
        if isinstance(result, TooSmallError):
            small.append(f"{printable(file.relative_to(folder))} ({result})")
        elif isinstance(result, ValueError):
            unreadable.append(f"{printable(file.relative_to(folder))} ({result})")
        else:
            good.append(file)
            images += [result] if few else []
    notes = [_note(name, f"of {len(files)} files", why, which) for why, which in left_out.items() if which]
    notes += [
        _note(name, "folders" if which[1:] else "folder", why, which) for why, which in passed_over.items() if which
    ]
    if not good:
        raise ValueError("; ".join([f"{name}: at least {FEWEST} images that can be read are needed, got none", *notes]))
    return Source(name, np.stack(images) if few else Photos(good), notes=notes)


def find_files(folder: Path) -> tuple[list[Path], dict[str, list[str]]]:
    """All files in a folder and the folders within it, but for hidden ones, in natural order of their names.

    Returns:
        The files, and the names of folders that were not entered, by the reason why.
    """
    found: list[Path] = []
    unreadable: list[str] = []
    links: list[str] = []

    def left_out(error: OSError) -> None:
        where = printable(Path(error.filename).relative_to(folder))
        unreadable.append(f"{where} ({error.strerror or type(error).__name__})")

    for parent, folders, files in os.walk(folder, onerror=left_out):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links += [printable(path.relative_to(folder)) for name in folders if (path := Path(parent, name)).is_symlink()]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    found.sort(key=lambda file: _natural(file.relative_to(folder).as_posix()))
    return found, {
        "cannot be read": sorted(unreadable, key=_natural),
        "links to folders, which are not followed": sorted(links, key=_natural),
    }


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    # Numbers by value, then what they are followed by; the name itself tells photo1 from photo01.
    parts = re.findall(r"([0-9]*)([^0-9]*)", name)
    return [(int(digits or -1), rest) for digits, rest in parts], name


def _look(files: Sequence[Path], progress: Progress) -> Iterator[tuple[Path, np.ndarray | ValueError]]:
    with ThreadPoolExecutor() as threads:  # decoders leave Python's lock alone
        for start in range(0, len(files), CHUNK):
            progress(start, len(files))
            chunk = files[start : start + CHUNK]
            yield from zip(chunk, threads.map(_try, chunk), strict=True)
    progress(len(files), len(files))


def _try(path: Path) -> np.ndarray | ValueError:
    try:
        return read_picture(path)
    except ValueError as error:
        return error


def _note(name: str, what: str, why: str, which: list[str]) -> str:
    more = f" and {len(which) - NAMED} more" if len(which) > NAMED else ""
    return f"{name}: {len(which)} {what} left out, {why}: {', '.join(which[:NAMED])}{more}"
