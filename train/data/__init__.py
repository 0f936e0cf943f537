"""Images to train on. A new kind of source gets a file of its own and a line in `open_source`."""

from .folder import read_folder
from .npz import read_npz
from .source import Source as Source
from .stl10 import open_stl10
from .synthetic import synthetic_images

KINDS = "synthetic, npz:PATH, folder:PATH, stl10, stl10:FOLDER, stl10-unlabelled or stl10-unlabelled:FOLDER"


def open_source(data: str) -> Source:
    """Opens the images that ``--data`` names, one of `KINDS`; docs/data.md describes them.

    Raises:
        ValueError: an unknown kind, unusable data, or a missing extra.
        FileNotFoundError: no such file or folder.
    """
    kind, colon, path = data.partition(":")
    if kind == "npz" and path:
        return read_npz(path)
    if kind == "folder" and path:
        return read_folder(path)
    if kind in ("stl10", "stl10-unlabelled") and bool(colon) == bool(path):
        return open_stl10(data, path or None, unlabelled=kind == "stl10-unlabelled")
    if data == "synthetic":
        return Source(data, synthetic_images())
    raise ValueError(f"--data must be {KINDS}, got {data!r}")
