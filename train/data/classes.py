"""Images in classes: a folder with a subfolder per class, an archive, or generated shapes."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..text import printable
from .folder import Photos, check_folder, find_files, read_files
from .labelled import INPUTS, LABELS, numbered
from .npz import load_arrays
from .source import Source
from .synthetic_classes import synthetic_shapes

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, for values in [0, 1]
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


class LabelledImages(Source):
    """Images with a class each; the first 80 % of each class are for training, the others for testing.

    Records are put in another order: first all for training, then all for testing, each part in the given order.

    Args are those of `Source`, ``labels`` int32 (n,) from 0, and the classes' ``names``.
    Raises ``ValueError`` for fewer than two classes, or than two images of one, and where `Source` does.

    Example:
        >>> images = np.zeros((12, 32, 32, 3), np.uint8)
        >>> source = LabelledImages("mine", images, np.repeat([0, 1], 6), ["cat", "dog"])
        >>> source.labels.tolist(), source.train, source.test
        ([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1], range(0, 8), range(8, 12))
    """

    labels: np.ndarray

    def __init__(
        self, name: str, records: Any, labels: np.ndarray, names: Sequence[str], notes: Sequence[str] = ()
    ) -> None:
        counts = np.bincount(labels, minlength=len(names))
        few = [f"{count} of class {printable(which)}" for which, count in zip(names, counts, strict=True) if count < 2]
        if few or len(names) < 2:
            got = "; ".join([", ".join(few) or f"one class, {printable(names[0])}", *notes])
            raise ValueError(f"{name}: at least 2 classes with at least 2 images each are needed, got {got}")
        training = np.zeros(len(labels), np.bool_)
        for label, count in enumerate(counts):
            training[np.flatnonzero(labels == label)[: count * 4 // 5]] = True
        order, many = np.argsort(~training, kind="stable"), int(training.sum())
        if isinstance(records, Photos):
            records = Photos([records.paths[i] for i in order], records.size)
        else:
            records = records[order]
        super().__init__(name, records, range(many), range(many, len(labels)), notes)
        self.labels = labels[order]
        self.names, self.classes = tuple(map(printable, names)), len(names)
        self.normalisation = 255 * MEAN, 255 * DEVIATION  # of uint8 values

    @cached_property
    def identity(self) -> dict[str, Any]:
        found = super().identity
        digest = hashlib.sha256(found["digest"].encode() + self.labels.tobytes()).hexdigest()
        return {**found, "classes": list(self.names), "digest": digest}

    @property
    def described(self) -> str:
        return f"{super().described} in {self.classes} classes"


def open_classes(data: str, size: int) -> LabelledImages:
    """Opens the images that ``--data`` names, squares of ``size`` pixels; those of an archive keep their size.

    Raises ``ValueError`` for an unknown kind or unusable data, and ``FileNotFoundError``.
    """
    start, _, path = data.partition(":")
    if data == "synthetic":
        return LabelledImages(data, *synthetic_shapes(size=size))
    if start == "folder" and path:
        return read_classes(path, size)
    if start != "npz" or not path:
        raise ValueError(f"--data must be synthetic, folder:PATH or npz:PATH for classes of images, got {data!r}")
    arrays = load_arrays(path, {INPUTS, LABELS})
    images = np.atleast_1d(arrays[INPUTS])
    labels, names = numbered(printable(data), "images", arrays[LABELS], len(images))
    return LabelledImages(printable(data), images, labels, [str(value) for value in names])


def read_classes(path: str, size: int) -> LabelledImages:
    """Opens a folder with a subfolder per class, which are numbered by name, as torchvision's ImageFolder does it."""
    name, folder = printable(f"folder:{path}"), check_folder(f"folder:{path}", path)
    inside = (each for each in folder.iterdir() if each.is_dir() and not each.is_symlink())
    names = sorted(each.name for each in inside if not each.name.startswith("."))
    if not names:
        raise ValueError(f"{name}: a subfolder per class is needed, got none")
    files, left_out = find_files(folder)
    left_out += [f"{printable(file.name)} (outside of the classes' folders)" for file in files if file.parent == folder]
    files = [file for file in files if file.parent != folder]
    good, records, notes = read_files(name, folder, files, left_out, size)
    labels = np.array([names.index(file.relative_to(folder).parts[0]) for file in good], np.int32)
    return LabelledImages(name, records, labels, names, notes)
