"""Text to show: file names, and errors of other libraries."""

import os
import unicodedata
from pathlib import Path

from jax.errors import JaxRuntimeError

EXHAUSTED = (JaxRuntimeError, MemoryError)  # out of memory: the device's (in most cases), or the host's


def data_title(data: str) -> str:
    """What ``--data`` names, without its folders, for a title.

    Example:
        >>> data_title("npz:/home/me/photos.npz"), data_title("synthetic")
        ('npz:photos.npz', 'synthetic')
    """
    kind, colon, path = data.partition(":")
    return printable(f"{kind}{colon}{Path(path).name}")


def printable(name: str | os.PathLike[str]) -> str:
    r"""A file name, or text with one in it, with escapes for what cannot be printed.

    Example:
        >>> printable("été.jpg"), printable("a\nb"), printable(os.fsdecode(b"\xe9t\xe9.jpg"))
        ('été.jpg', 'a\\nb', '\\udce9t\\udce9.jpg')
    """
    hidden = ("Cc", "Cs")  # control characters, and surrogates, which stand for undecodable bytes
    letters = ((letter, unicodedata.category(letter) in hidden) for letter in os.fspath(name))
    return "".join(letter.encode("unicode_escape").decode() if escaped else letter for letter, escaped in letters)


def first_line(error: BaseException) -> str:
    r"""The first line of an error's message, or its type if it has none.

    Example:
        >>> first_line(RuntimeError("out of memory\nallocator: ...")), first_line(MemoryError())
        ('out of memory', 'MemoryError')
    """
    return next(iter(str(error).splitlines()), type(error).__name__)
