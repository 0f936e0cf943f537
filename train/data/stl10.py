"""STL-10 through tensorflow-datasets: 5,000 labelled and 100,000 unlabelled images of 96x96 (Coates, Lee and Ng, 2011).

Preparing it takes the ``stl10`` extra and the archive, which tensorflow-datasets downloads unless the user's folder
holds it; after that TensorFlow is not needed. tensorflow-datasets stores examples in the order of a hash. Here they are
back in the order of the archive, on which the tutorial's split and its ``article`` patches rely.
"""

import hashlib
import importlib.util
import io
import os
import shutil
import threading
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..text import first_line
from .source import Source

URL = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
ARCHIVE = "stl10_binary.tar.gz"
UNPACKED = f"{ARCHIVE}.unpacked"  # a folder that exists while the archive is prepared
EXTRA = "install it with: pip install -e '.[stl10]'"
WAIT = 3.0  # seconds without an answer after which a server counts as unreachable; downloaders try for minutes


class Archive:
    """The images of some splits of tensorflow-datasets, given as PNG files, each split in the order of the archive."""

    def __init__(self, builder: Any, *splits: str) -> None:
        from tensorflow_datasets import decode

        # Decoded here: tensorflow-datasets would warn, in every process, that it has no OpenCV.
        decoders = {"image": decode.SkipDecoding()}
        self.splits = [builder.as_data_source(split, decoders=decoders) for split in splits]
        orders = (hashed_order(len(part), split) for part, split in zip(self.splits, splits, strict=True))
        self.places = [np.argsort(order) for order in orders]

    def __len__(self) -> int:
        return sum(map(len, self.places))

    def __getitem__(self, index: int) -> np.ndarray:
        part = 0
        while index >= len(self.places[part]):
            index -= len(self.places[part])
            part += 1
        file = io.BytesIO(self.splits[part][int(self.places[part][index])]["image"])
        with Image.open(file, formats=["PNG"]) as image:
            return np.asarray(image)


def open_stl10(name: str, folder: str | None, *, unlabelled: bool) -> Source:
    """Opens STL-10, preparing it at the first use.

    Args:
        name: for messages.
        folder: holds the archive or the prepared data set, and gets the latter; by default that of
            tensorflow-datasets, ``~/tensorflow_datasets`` or ``TFDS_DATA_DIR``.
        unlabelled: trains on the 100,000 unlabelled images, not on the first 4,000 labelled ones. The last 1,000
            labelled images are the test set in either case.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a missing extra, or an archive that is missing and cannot be downloaded, or damaged.
    """
    root = None if folder is None else Path(os.path.expanduser(folder))
    if root is not None and not root.is_dir():
        raise FileNotFoundError(f"{name}: no such folder")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides TensorFlow's notes about the CPU
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(f"{name}: tensorflow-datasets is needed, got: {error}; {EXTRA}") from error
    builder = tfds.builder("stl10", data_dir=root, file_format="array_record")
    if not builder.is_prepared():
        _prepare(name, builder, root)
    if not unlabelled:
        return Source(name, Archive(builder, "train"))
    many, labelled = (builder.info.splits[split].num_examples for split in ("unlabelled", "train"))
    count = many + labelled
    return Source(name, Archive(builder, "unlabelled", "train"), range(many), range(count - labelled // 5, count))


def hashed_order(count: int, split: str) -> np.ndarray:
    """The index in the archive of each example of tensorflow-datasets, which salts its hash with the split's name.

    Example:
        >>> hashed_order(5, "train").tolist()
        [4, 0, 3, 1, 2]
    """
    keys = (hashlib.md5(split.encode() + str(index).encode()).digest() for index in range(count))
    return np.array(sorted(range(count), key=list(keys).__getitem__))


def _prepare(name: str, builder: Any, folder: Path | None) -> None:
    for needed in ("tensorflow", "importlib_resources"):
        if importlib.util.find_spec(needed) is None:
            raise ValueError(f"{name}: preparing STL-10 needs {needed}, got none; {EXTRA}")
    import tensorflow_datasets as tfds

    root = Path(builder.data_dir).parents[1]
    size = int(builder.url_infos[URL].size)
    archive = root / ARCHIVE
    if folder and archive.is_file():
        if archive.stat().st_size != size:
            raise ValueError(
                f"{name}: {archive} must have {size} bytes, got {archive.stat().st_size}: download it again"
            )
    elif not _is_downloaded(root, size) and (reason := why_unreachable(URL)):
        raise ValueError(
            f"{name}: STL-10 has not been prepared, and {URL} cannot be downloaded: {reason}. Download that file "
            f"({size / 1e9:.1f} GB) elsewhere, put it into a folder as {ARCHIVE}, and pass --data "
            f"{name.partition(':')[0]}:FOLDER"
        )
    unpacked = root / UNPACKED
    try:
        unpacked.mkdir(parents=True, exist_ok=True)
        config = tfds.download.DownloadConfig(manual_dir=folder, extract_dir=unpacked)
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # from TensorFlow, the network, the disk or the archive
        raise ValueError(f"{name}: preparing STL-10 failed: {first_line(error)}") from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)  # 3 GB


def _is_downloaded(root: Path, size: int) -> bool:
    """Whether tensorflow-datasets has downloaded the whole archive, and its record of that."""
    return any(
        path.is_file() and path.stat().st_size == size and path.with_name(f"{path.name}.INFO").is_file()
        for path in (root / "downloads").rglob("*stl10*.tar.gz")
    )


def why_unreachable(url: str, seconds: float = WAIT) -> str | None:
    """Why a file cannot be downloaded, or None; no answer within ``seconds`` counts as unreachable."""
    reason: list[str | None] = [f"no answer within {seconds:g} s"]

    def ask() -> None:
        try:
            with urllib.request.build_opener().open(url, timeout=seconds):
                reason.append(None)
        except TimeoutError:
            pass
        except Exception as error:
            reason.append(str(getattr(error, "reason", None) or error))

    # In a thread, which may be left behind: looking up a name has no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return reason[-1]
