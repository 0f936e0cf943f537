"""The originals of attention between tokens, and what replaces it."""

from .original import Original

ORIGINALS: tuple[Original, ...] = ()
