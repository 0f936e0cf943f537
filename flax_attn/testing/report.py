"""The report of a comparison, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .locate import Finding
from .tolerances import FLOAT32_SIZES, TRAINED, UNITS

SHOWN = 10  # rows in a short report
LOST = "lost in rounding"


@dataclass(frozen=True)
class Row:
    """One tensor of one quantity.

    Attributes:
        quantity: "output", "map", "parameter gradient", "input gradient", "buffer"; after optimizer steps "loss",
            "trained parameter" and "trained buffer".
        path: which one: ``output[0]``, ``fc.weight``, ``bn.running_mean``.
        mode: "train" or "eval", or the optimizer's name.
        dtype: of both computations; errors are against PyTorch's float64 on weights and inputs of this dtype.
        error: ours, relative; NaN where a result is not finite.
        torch_error: PyTorch's own, in the same dtype; 0 for float64.
        tolerance: the largest ``error`` allowed.
        note: "zero by algebra", "missing in flax", "not finite in torch", or what compares nothing: "zero in torch" (a
            dead ReLU, for instance), and "lost in rounding", where a result of 0 would be within the tolerance.
    """

    quantity: str
    path: str
    mode: str
    dtype: str
    error: float
    torch_error: float
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the error is within its tolerance; NaN never is."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok  " if self.ok else "FAIL"
        note = f" ({self.note})" if self.note else ""
        return (
            f"{verdict} {self.dtype} {self.mode:5} {self.quantity:18} {self.path}: error {self.error:.2e}, "
            f"tolerance {self.tolerance:.0e}, PyTorch's own {self.torch_error:.2e}{note}"
        )


@dataclass(frozen=True)
class Report:
    """All rows of a comparison.

    Attributes:
        name: of the pair.
        rows: by dtype, mode, quantity, and PyTorch's order of tensors.
        finding: where the two sides first differ, if something failed and the place was found.
        explanations: how the two sides differ there, one line each, as far as that is known.
    """

    name: str
    rows: Sequence[Row]
    finding: Finding | None = None
    explanations: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        """Whether every row is within its tolerance, and there are rows."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    @property
    def failures(self) -> list[Row]:
        """The rows beyond their tolerance."""
        return [row for row in self.rows if not row.ok]

    @property
    def vacuous(self) -> list[Row]:
        """The rows that compared zeros with zeros, as behind a dead ReLU, and so prove nothing."""
        return [row for row in self.rows if row.note == "zero in torch"]

    def worst(self, quantity: str, dtype: str) -> Row | None:
        """The row with the largest error of a quantity (NaN counts as largest), or None if there is none."""
        rows = [row for row in self.rows if (row.quantity, row.dtype) == (quantity, dtype)]
        return max(rows, key=lambda row: (row.error != row.error, row.error), default=None)

    def pooled(self, dtype: str) -> tuple[float, float]:
        """Our error and PyTorch's own in ``dtype``, over all tensors.

        Pooled is the root of the mean square over tensors, at least one unit in the last place.
        """
        rows = [row for row in self.rows if row.dtype == dtype]
        ours, theirs = (
            max(float(np.sqrt(np.mean(np.square(errors)))), UNITS[dtype]) if errors else float("nan")
            for errors in ([row.error for row in rows], [row.torch_error for row in rows])
        )
        return ours, theirs

    def ratio(self, dtype: str) -> float:
        """Our pooled error over PyTorch's own: below 1 we are closer to the truth. NaN if nothing was compared."""
        ours, theirs = self.pooled(dtype)
        return ours / theirs

    def full(self) -> str:
        """The report with every row, failed or not."""
        return "\n".join([*self._head(), *map(str, self.rows)])

    def __str__(self) -> str:
        """The cause and the first failed rows; of a success the worst row of each dtype, mode and quantity."""
        rows = self.failures[:SHOWN] or self._worst_of_each()
        hidden = len(self.failures or self.rows) - len(rows)
        more = [f"... and {hidden} more; print(report.full()) shows all"] if hidden else []
        return "\n".join([*self._head(), *map(str, rows), *more])

    def _head(self) -> list[str]:
        head = f"{self.name}: {len(self.failures)} of {len(self.rows)} comparisons failed"
        if self.vacuous:
            head += f"; {len(self.vacuous)} compared zeros with zeros, which proves nothing"
        lost = [row for row in self.rows if row.note == LOST]
        if lost:
            head += f"; {len(lost)} are lost in rounding, PyTorch's as well, which proves nothing either"
        found = [str(self.finding)] if self.finding else []
        return [head, *found, *(self.explanations or self._float32())]

    def _worst_of_each(self) -> list[Row]:
        worst: dict[tuple[str, str, str], Row] = {}
        for row in self.rows:
            kept = worst.setdefault((row.dtype, row.mode, row.quantity), row)
            if row.error > kept.error:
                worst[row.dtype, row.mode, row.quantity] = row
        return list(worst.values())

    def _float32(self) -> list[str]:
        """A hint, where the errors in float64 have the sizes that a float32 inside makes."""
        errors = [row.error for row in self.failures if row.dtype == "float64" and row.quantity not in TRAINED]
        least, most = FLOAT32_SIZES
        if errors and least <= max(errors) < most:
            return ["errors of this size in float64 look like a float32 somewhere inside"]
        return []


class ParityError(AssertionError):
    """Two modules do not compute the same function; the message is the report.

    Attributes:
        report: the whole report.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report
