"""The cases of gates that also see the places of a map."""

from .case import Case

CASES: tuple[Case, ...] = ()
