"""From the words of ``--data`` to images. A new kind of source gets its file here and its line below."""

from .folder import Progress, read_folder
from .npz import read_npz
from .source import Source
from .synthetic import synthetic_images

KINDS = "synthetic, npz:PATH, folder:PATH, stl10, stl10:FOLDER, stl10-unlabelled or stl10-unlabelled:FOLDER"


def open_source(data: str, progress: Progress | None = None) -> Source:
    """Opens what ``--data`` names.

    - ``synthetic``: 5,000 generated images.
    - ``npz:PATH``: an archive of images (train/data/npz.py).
    - ``folder:PATH``: photos of any size and format (train/data/folder.py).
    - ``stl10``, ``stl10:FOLDER``: STL-10's training images (train/data/stl10.py), prepared by tensorflow-datasets;
      FOLDER holds the downloaded archive, or what was prepared from it.
    - ``stl10-unlabelled``, ``stl10-unlabelled:FOLDER``: its 100,000 unlabelled images for training, tested on the
      images on which ``stl10`` is tested.

    Args:
        data: these words.
        progress: told now and then how much of a folder has been looked through: files done, and files in all.

    Raises:
        ValueError: an unknown kind, a source that does not hold what it should, or a missing extra.
        FileNotFoundError: no such file or folder.
    """
    kind, colon, path = data.partition(":")
    if kind == "npz" and path:
        return read_npz(path)
    if kind == "folder" and path:
        return read_folder(path, progress)
    if kind in ("stl10", "stl10-unlabelled") and bool(colon) == bool(path):
        from .stl10 import open_stl10

        return open_stl10(data, path or None, unlabelled=kind == "stl10-unlabelled")
    if data == "synthetic":
        return Source(data, synthetic_images())
    raise ValueError(f"--data must be {KINDS}, got {data!r}")
