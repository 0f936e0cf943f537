"""A small archive in the binary layout of STL-10, for tests."""

import io
import tarfile
from pathlib import Path

import numpy as np

COUNTS = {"train": 11, "test": 7, "unlabeled": 13}
CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


def images(split: str) -> np.ndarray:
    """What the archive holds, uint8 (n, 96, 96, 3)."""
    seed = list(COUNTS).index(split)
    return np.random.default_rng(seed).integers(0, 256, (COUNTS[split], 96, 96, 3), np.uint8)


def write_archive(folder: Path) -> Path:
    """Writes ``stl10_binary.tar.gz``; an image is all its reds, then greens, then blues, each column by column."""
    files = {"class_names.txt": "\n".join([*CLASSES, ""]).encode(), "fold_indices.txt": b"0 1 2\n"}
    for split, count in COUNTS.items():
        files[f"{split}_X.bin"] = images(split).transpose(0, 3, 2, 1).tobytes()
        if split != "unlabeled":
            files[f"{split}_y.bin"] = bytes(1 + index % 10 for index in range(count))
    path = folder / "stl10_binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"stl10_binary/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
