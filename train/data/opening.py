"""From the words of ``--data`` to images. A new kind of source gets its file here and its line below."""

from .npz import read_npz
from .source import Source
from .synthetic import synthetic_images


def open_source(data: str) -> Source:
    """Reads or generates the images that ``--data`` names: ``synthetic`` or ``npz:PATH``.

    Raises:
        ValueError: an unknown kind, or a file that does not hold what it should.
        FileNotFoundError: no such file.
    """
    kind, _, path = data.partition(":")
    if kind == "npz" and path:
        return read_npz(path)
    if data == "synthetic":
        return Source(data, synthetic_images())
    raise ValueError(f"--data must be synthetic or npz:PATH, got {data!r}")
