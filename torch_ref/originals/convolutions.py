"""The originals of attention over kernels, branches and frequencies."""

from .original import Original

ORIGINALS: tuple[Original, ...] = ()
