"""The cases of attention in windows, blocks and neighbourhoods."""

from .case import Case

CASES: tuple[Case, ...] = ()
