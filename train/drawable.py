"""Texts as pictures can show them."""

from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def drawable(text: str) -> str:
    r"""A text without letters that the font of pictures lacks, for which Matplotlib would draw a box and warn.

    Example:
        >>> drawable("\N{HIRAGANA LETTER A}.jpg") == "\N{REPLACEMENT CHARACTER}.jpg"
        True
    """
    return "".join(letter if letter == "\n" or _font().get_char_index(ord(letter)) else UNKNOWN for letter in text)


@lru_cache(maxsize=1)
def _font() -> FT2Font:
    return FT2Font(findfont(FontProperties()))
