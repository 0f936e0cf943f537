"""STL-10 through tensorflow-datasets: 5,000 labelled and 100,000 unlabelled images of 96x96 (Coates, Lee and Ng, 2011).

Once prepared it is read without TensorFlow. Preparing takes the ``stl10`` extra, and the archive: downloaded by
tensorflow-datasets, or already in the folder that the user names. tensorflow-datasets stores examples in the order of a
hash; here they stand in the order of the archive again, which the tutorial's split and its ``article`` patches rely on.
"""

import contextlib
import hashlib
import importlib.util
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .reach import why_unreachable
from .source import Records, Source

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

URL = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
ARCHIVE = "stl10_binary.tar.gz"
UNPACKED = "unpacked_"  # how the names of folders begin that are there while the archive is prepared
EXTRA = "install it with: pip install -e '.[stl10]'"


class Unhashed:
    """The images of a split in the order of the archive.

    Args:
        examples: the split as tensorflow-datasets gives it, with PNG files for images.
        split: its name, which salts the hash.
    """

    def __init__(self, examples: Sequence[Any], split: str) -> None:
        self.examples = examples
        self.place = np.argsort(hashed_order(len(examples), split))

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, index: int) -> np.ndarray:
        file = io.BytesIO(self.examples[int(self.place[index])]["image"])
        with Image.open(file, formats=["PNG"]) as image:
            return np.asarray(image)


class Joined:
    """Records after records."""

    def __init__(self, first: Records, second: Records) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: int) -> np.ndarray:
        if index < len(self.first):
            return self.first[index]
        return self.second[index - len(self.first)]


def open_stl10(name: str, folder: str | None, *, unlabelled: bool) -> Source:
    """Opens STL-10, and prepares it first where that has not been done.

    Args:
        name: what messages call it.
        folder: with the archive, or with what was prepared from it, which goes there too; by default that of
            tensorflow-datasets, ``~/tensorflow_datasets`` or ``TFDS_DATA_DIR``.
        unlabelled: whether the 100,000 unlabelled images train, and not the first 4,000 of the labelled ones. The test
            images are the last 1,000 labelled ones in either case.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a missing extra, an archive that is neither there nor within reach, or one that is damaged.
    """
    root = None if folder is None else Path(os.path.expanduser(folder))  # a home that nobody has stays
    if root is not None and not root.is_dir():
        raise FileNotFoundError(f"{name}: no such folder")
    builder = _builder(name, root)
    if not builder.is_prepared():
        _prepare(name, builder, folder)
    labelled = _records(builder, "train")
    if not unlabelled:
        return Source(name, labelled)
    many = _records(builder, "unlabelled")
    tested = len(labelled) // 5
    count = len(many) + len(labelled)
    return Source(name, Joined(many, labelled), range(len(many)), range(count - tested, count))


def hashed_order(count: int, split: str) -> np.ndarray:
    """The index within the archive of each example that tensorflow-datasets gives, (count,).

    Example:
        >>> hashed_order(5, "train").tolist()
        [4, 0, 3, 1, 2]
    """
    keys = (hashlib.md5(split.encode() + str(index).encode()).digest() for index in range(count))
    return np.array(sorted(range(count), key=list(keys).__getitem__))


def _builder(name: str, folder: Path | None) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's news about the processor
    try:
        from tensorflow_datasets import builder
    except ImportError as error:
        raise ValueError(f"{name}: tensorflow-datasets is needed, got: {error}; {EXTRA}") from error
    # It warns where nothing is prepared yet, which is no fault.
    logging.getLogger("absl").addFilter(_is_no_missing_folder)
    return builder("stl10", data_dir=folder, file_format="array_record")


def _is_no_missing_folder(record: logging.LogRecord) -> bool:
    return "has no dataset_info.json" not in record.getMessage()


def _records(builder: Any, split: str) -> Unhashed:
    from tensorflow_datasets import decode

    # Decoded here: tensorflow-datasets would warn, in every process, that it has no OpenCV.
    return Unhashed(builder.as_data_source(split, decoders={"image": decode.SkipDecoding()}), split)


def _prepare(name: str, builder: Any, folder: str | None) -> None:
    import tensorflow_datasets as tfds

    for needed in ("tensorflow", "importlib_resources"):
        if importlib.util.find_spec(needed) is None:
            raise ValueError(f"{name}: preparing STL-10 needs {needed}, got none; {EXTRA}")
    root = Path(builder.data_dir).parents[1]
    size = int(builder.url_infos[URL].size)
    archive = None if folder is None else root / ARCHIVE
    if archive and archive.is_file():
        if archive.stat().st_size != size:
            raise ValueError(
                f"{name}: {archive} must have {size} bytes, got {archive.stat().st_size}: download it again"
            )
    elif not _is_downloaded(root, size):
        _check_reach(name, size)
    with _folder_to_unpack_in(root) as unpacked:
        config = tfds.download.DownloadConfig(manual_dir=folder and root, extract_dir=unpacked)
        try:
            builder.download_and_prepare(download_config=config)
        except Exception as error:  # of TensorFlow, the network, the disk, the archive
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"{name}: preparing STL-10 failed: {reason[0]}") from error


def _is_downloaded(root: Path, size: int) -> bool:
    """Whether tensorflow-datasets has the archive already, whole, with a note beside it."""
    archives = (root / "downloads").rglob("*stl10*.tar.gz")
    return any(
        path.is_file() and path.stat().st_size == size and path.with_name(f"{path.name}.INFO").is_file()
        for path in archives
    )


@contextlib.contextmanager
def _folder_to_unpack_in(root: Path) -> Iterator[str]:
    """A folder for 3 GB that nobody needs afterwards; those of processes that were killed go before."""
    root.mkdir(parents=True, exist_ok=True)
    with _held(root) as alone:
        for left in root.glob(f"{UNPACKED}*") if alone else ():
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=UNPACKED) as unpacked:
            yield unpacked


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Holds a folder, and says whether no other process does; where folders cannot be held nobody knows."""
    if fcntl is None:
        yield False
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(opened)


def _check_reach(name: str, size: int) -> None:
    reason = why_unreachable(URL)
    if reason:
        raise ValueError(
            f"{name}: STL-10 has not been prepared, and {URL} cannot be downloaded: {reason}. Download that file "
            f"({size / 1e9:.1f} GB) elsewhere, put it into a folder as {ARCHIVE}, and pass --data "
            f"{name.partition(':')[0]}:FOLDER"
        )
