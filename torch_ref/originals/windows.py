"""The originals of attention in windows, blocks and neighbourhoods."""

from .original import Original

ORIGINALS: tuple[Original, ...] = ()
