"""The originals of attention between the places or the channels of a map."""

from .original import Original

ORIGINALS: tuple[Original, ...] = ()
