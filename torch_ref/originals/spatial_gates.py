"""The originals of gates that also see the places of a map."""

from .original import Original

ORIGINALS: tuple[Original, ...] = ()
