"""Every image file in a folder and its subfolders, as 96x96 squares.

Files come in natural order of their names (photo2 before photo10); hidden ones are skipped. Opening a folder decodes
every file once, so that no bad file interrupts a run: files that cannot be read or are smaller than a patch are left
out and named, as are unreadable subfolders and links to folders, which could lead back. A small folder's images stay in
memory; a large one keeps the paths and decodes on demand.
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

NAMED = 20  # files that a note names; it counts the others
CHUNK = 256  # files decoded at a time, which bounds the memory that a large folder takes


class Photos:
    """Images decoded from their files on demand."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = [os.fspath(path) for path in paths]  # pickled for workers: strings take half of Path's bytes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        try:
            return read_picture(Path(self.paths[index]))
        except ValueError as error:
            path = printable(self.paths[index])
            raise ValueError(f"{path} could be read at first, but no longer: {error}") from error


def read_folder(path: str, progress: Callable[[int, int], None] | None = None) -> Source:
    """Opens a folder of photos, calling ``progress`` with the numbers of files read so far and in all."""
    name, folder = printable(f"folder:{path}"), Path(os.path.expanduser(path))
    if not folder.exists():
        raise FileNotFoundError(f"{name}: no such folder")
    if not folder.is_dir():
        raise ValueError(f"{name}: must be a folder, got a file")
    files, unreadable_folders, links = find_files(folder)
    keep_images = len(files) * SIZE * SIZE * 3 <= RESIDENT_BYTES
    good: list[Path] = []
    images: list[np.ndarray] = []
    unreadable: list[str] = []
    small: list[str] = []
    for done, (file, result) in enumerate(_read_all(files)):
        if progress and done % CHUNK == 0:
            progress(done, len(files))
        if isinstance(result, ValueError):
            reasons = small if isinstance(result, TooSmallError) else unreadable
            reasons.append(f"{printable(file.relative_to(folder))} ({result})")
        else:
            good.append(file)
            images += [result] if keep_images else []
    if progress:
        progress(len(files), len(files))
    left_out = (
        (f"of {len(files)} files", "cannot be read", unreadable),
        (f"of {len(files)} files", f"smaller than {PATCH}x{PATCH}", small),
        ("subfolders", "cannot be read", unreadable_folders),
        ("subfolders", "links to folders, which are not followed", links),
    )
    notes = [_note(name, *which) for which in left_out if which[-1]]
    if not good:
        raise ValueError("; ".join([f"{name}: at least {FEWEST} readable images are needed, got none", *notes]))
    return Source(name, np.stack(images) if keep_images else Photos(good), notes=notes)


def find_files(folder: Path) -> tuple[list[Path], list[str], list[str]]:
    """The files in a folder and its subfolders, and the names of unreadable subfolders and of links to folders."""
    found: list[Path] = []
    unreadable: list[str] = []
    links: list[str] = []

    def report(error: OSError) -> None:
        where = printable(Path(error.filename).relative_to(folder))
        unreadable.append(f"{where} ({error.strerror or type(error).__name__})")

    for parent, folders, files in os.walk(folder, onerror=report):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links += [printable(path.relative_to(folder)) for name in folders if (path := Path(parent, name)).is_symlink()]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    found.sort(key=lambda file: _natural(file.relative_to(folder).as_posix()))
    return found, sorted(unreadable, key=_natural), sorted(links, key=_natural)


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts numbers by value; the name itself distinguishes photo1 from photo01."""
    parts = re.findall(r"([0-9]*)([^0-9]*)", name)
    return [(int(digits or -1), rest) for digits, rest in parts], name


def _read_all(files: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray | ValueError]]:
    with ThreadPoolExecutor() as threads:  # decoders release the GIL
        for start in range(0, len(files), CHUNK):
            chunk = files[start : start + CHUNK]
            yield from zip(chunk, threads.map(_read, chunk), strict=True)


def _read(path: Path) -> np.ndarray | ValueError:
    try:
        return read_picture(path)
    except ValueError as error:
        return error


def _note(name: str, of_what: str, why: str, which: list[str]) -> str:
    more = f" and {len(which) - NAMED} more" if len(which) > NAMED else ""
    return f"{name}: {len(which)} {of_what} left out, {why}: {', '.join(which[:NAMED])}{more}"
