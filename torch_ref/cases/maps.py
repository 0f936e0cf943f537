"""The cases of attention between the places or the channels of a map."""

from .case import Case

CASES: tuple[Case, ...] = ()
