"""The cases of attention over kernels, branches and frequencies."""

from .case import Case

CASES: tuple[Case, ...] = ()
