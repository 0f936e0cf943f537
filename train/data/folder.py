"""Every image file in a folder and its subfolders, as 96x96 squares.

Files come in natural order of their names (photo2 before photo10); hidden ones are skipped. Opening a folder decodes
every file once, so that no bad file interrupts a run: files that cannot be read or are smaller than a patch are left
out and named, as are unreadable subfolders and links to folders, which could lead back. A small folder's images stay in
memory; a large one keeps the paths and decodes on demand.
"""

import os
import re
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from rich import get_console
from rich.progress import track

from ..text import printable
from .picture import SIZE, read_picture
from .source import FEWEST, Source

KEPT_BYTES = 2**29  # of images that stay in memory, 19,418 of them
NAMED = 20  # files that a note names; it counts the others


@dataclass
class Photos:
    """Images decoded from their files on demand."""

    paths: list[Path]
    size: int = SIZE  # pixels along each side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        try:
            return read_picture(self.paths[index], self.size, self.size)
        except ValueError as error:
            path = printable(self.paths[index])
            raise OSError(f"{path} could be read at first, but no longer: {error}") from error


def read_folder(path: str) -> Source:
    """Opens a folder of photos; a terminal gets a progress bar meanwhile."""
    name, folder = printable(f"folder:{path}"), check_folder(f"folder:{path}", path)
    _, records, notes = read_files(name, folder, *find_files(folder))
    return Source(name, records, notes=notes)


def check_folder(name: str, path: str) -> Path:
    """The folder with this path, ``~`` replaced; raises where there is none."""
    folder = Path(os.path.expanduser(path))
    if not folder.exists():
        raise FileNotFoundError(f"{printable(name)}: no such folder")
    if not folder.is_dir():
        raise ValueError(f"{printable(name)}: must be a folder, got a file")
    return folder


def read_files(
    name: str, folder: Path, files: list[Path], left_out: list[str], size: int = SIZE
) -> tuple[list[Path], np.ndarray | Photos, list[str]]:
    """Reads the files that `find_files` has found as squares of this size.

    Returns the readable ones, their images, (n, size, size, 3) or decoded on demand, and a note on those left out.
    """
    keep_images = len(files) * size * size * 3 <= KEPT_BYTES
    good: list[Path] = []
    images: list[np.ndarray] = []
    with ThreadPool() as threads:  # decoders release the GIL
        read, console = threads.imap(lambda file: _read(file, size), files), get_console()
        hidden = not console.is_terminal
        results = track(read, "reading the files", len(files), console=console, transient=True, disable=hidden)
        for file, result in zip(files, results, strict=True):
            if isinstance(result, ValueError):
                left_out.append(f"{printable(file.relative_to(folder))} ({result})")
            else:
                good.append(file)
                images += [result] if keep_images else []
    more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
    note = f"{name}: {len(left_out)} files or folders left out: {', '.join(left_out[:NAMED])}{more}"
    if not good:
        raise ValueError(f"{name}: at least {FEWEST} readable images are needed, got none; {note}")
    return good, np.stack(images) if keep_images else Photos(good, size), [note] if left_out else []


def _read(path: Path, size: int) -> np.ndarray | ValueError:
    try:
        return read_picture(path, size, size)
    except ValueError as error:
        return error


def find_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The files in a folder and its subfolders, and unreadable subfolders and links to folders, which are left out."""
    found: list[Path] = []
    left_out: list[str] = []

    def report(error: OSError) -> None:
        left_out.append(f"{printable(Path(error.filename).relative_to(folder))} ({error.strerror})")

    for parent, folders, files in os.walk(folder, onerror=report):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = (path for name in folders if (path := Path(parent, name)).is_symlink())
        left_out += [f"{printable(path.relative_to(folder))} (a link to a folder)" for path in links]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found, key=lambda file: _natural(file.relative_to(folder).as_posix())), left_out


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts numbers by value; the name itself distinguishes photo1 from photo01."""
    parts = re.findall(r"([0-9]*)([^0-9]*)", name)
    return [(int(digits or -1), rest) for digits, rest in parts], name
