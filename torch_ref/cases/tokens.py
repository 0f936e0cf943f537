"""The cases of attention between tokens, and what replaces it."""

from .case import Case

CASES: tuple[Case, ...] = ()
