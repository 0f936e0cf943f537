"""The cases of gates that are computed from the pooled map."""

from .case import Case

CASES: tuple[Case, ...] = ()
