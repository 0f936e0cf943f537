"""Names of files as they may be shown: in a line of text, on a terminal, in a picture."""

import os
import unicodedata
from pathlib import Path

SHOWN_AS_ESCAPES = ("Cc", "Cs")  # control characters, and what stands for bytes that are no text


def data_title(data: str) -> str:
    """What ``--data`` names, without the folders it lies in: for a title.

    Example:
        >>> data_title("npz:/home/me/photos.npz"), data_title("synthetic")
        ('npz:photos.npz', 'synthetic')
    """
    kind, colon, path = data.partition(":")
    return printable(f"{kind}{colon}{Path(path).name}")


def printable(name: str | os.PathLike[str]) -> str:
    r"""A name, or words with names in them, with escapes for what cannot be shown.

    Example:
        >>> printable("été.jpg"), printable("a\nb"), printable(os.fsdecode(b"\xe9t\xe9.jpg"))
        ('été.jpg', 'a\\nb', '\\udce9t\\udce9.jpg')
    """
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in SHOWN_AS_ESCAPES else letter
        for letter in os.fspath(name)
    )
