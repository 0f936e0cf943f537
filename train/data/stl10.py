"""STL-10 through tensorflow-datasets: 5,000 labelled and 100,000 unlabelled images of 96x96 (Coates, Lee and Ng, 2011).

Preparing it takes the ``stl10`` extra and the archive, which tensorflow-datasets downloads unless the user's folder
holds it; after that TensorFlow is not needed. tensorflow-datasets stores examples in the order of a hash. Here they are
back in the order of the archive, on which the tutorial's split and its ``article`` patches rely.
"""

import hashlib
import io
import os
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..text import first_line
from .folder import check_folder
from .source import Source

URL = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
UNPACKED = "stl10_binary.tar.gz.unpacked"  # a folder that exists while the archive is prepared
EXTRA = "install it with: pip install -e '.[stl10]'"


class Archive:
    """The images of some splits of tensorflow-datasets, given as PNG files, each split in the order of the archive."""

    def __init__(self, builder: Any, *splits: str) -> None:
        from tensorflow_datasets import decode

        # Decoded here: tensorflow-datasets would warn that it has no OpenCV.
        decoders = {"image": decode.SkipDecoding()}
        self.parts = [builder.as_data_source(split, decoders=decoders) for split in splits]
        orders = [hashed_order(len(part), split) for part, split in zip(self.parts, splits, strict=True)]
        self.places = [(part, place) for part, order in enumerate(orders) for place in np.argsort(order).tolist()]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> np.ndarray:
        part, place = self.places[index]
        with Image.open(io.BytesIO(self.parts[part][place]["image"]), formats=["PNG"]) as image:
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
        ValueError: a file, a missing extra, or an archive that is missing and cannot be downloaded, or damaged.
    """
    root = None if folder is None else check_folder(name, folder)
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
    return np.array(sorted(range(count), key=lambda index: hashlib.md5(f"{split}{index}".encode()).digest()))


def _prepare(name: str, builder: Any, folder: Path | None) -> None:
    import tensorflow_datasets as tfds

    root = Path(builder.data_dir).parents[1]
    unpacked = root / UNPACKED
    try:
        if not any(root.rglob("*stl10_binary*.tar.gz")):  # tensorflow-datasets would try to reach a server for minutes
            urllib.request.urlopen(URL, timeout=10).close()
        unpacked.mkdir(parents=True, exist_ok=True)
        config = tfds.download.DownloadConfig(manual_dir=folder, extract_dir=unpacked)
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # from TensorFlow or its absence, the network, the disk or the archive
        raise ValueError(
            f"{name}: STL-10 could not be prepared: {first_line(error)}. That needs the stl10 extra, {EXTRA}; without "
            f"a network, download {URL} (2.6 GB) into a folder and pass --data {name.partition(':')[0]}:FOLDER"
        ) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)  # 3 GB
