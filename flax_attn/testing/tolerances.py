"""THE tolerances: no other file holds one, a test over the syntax tree sees to that.

A relative error is ``norm(got - reference) / norm(reference)`` over one tensor. In float64 the reference is PyTorch's
float64 result, in float32 too: what is judged there is how far *our* float32 is from the truth, not from PyTorch's
float32, which in places is further from it than ours.

Loosening a row, or adding one to `EXCEPTIONS`, takes a reason beside it.
"""

QUANTITIES = ("output", "map", "parameter gradient", "input gradient", "buffer")

TABLE: dict[tuple[str, str, str], float] = {
    ("output", "float64", "cpu"): 1e-12,
    ("map", "float64", "cpu"): 1e-12,
    ("parameter gradient", "float64", "cpu"): 1e-12,
    ("input gradient", "float64", "cpu"): 1e-12,
    ("buffer", "float64", "cpu"): 1e-12,
    ("output", "float32", "cpu"): 2e-6,
    ("map", "float32", "cpu"): 2e-6,
    ("parameter gradient", "float32", "cpu"): 2e-5,
    ("input gradient", "float32", "cpu"): 2e-5,
    ("buffer", "float32", "cpu"): 2e-6,
    # The same run twice, its float32 sums taken in another order: over a few steps the difference grows.
    ("training error", "float32", "cpu"): 1e-3,
}

EXCEPTIONS: dict[tuple[str, str, str, str], tuple[float, str]] = {}
"""(case, quantity, dtype, backend) to (tolerance, reason)."""

# Statistical tests of initial values and dropout rates: the chance that a correct sample is called wrong.
P_VALUE = 1e-4


def tolerance(quantity: str, dtype: str, backend: str = "cpu", case: str = "") -> float:
    """The largest relative error that ``quantity`` may have.

    Args:
        quantity: one of `QUANTITIES`.
        dtype: "float64" or "float32".
        backend: "cpu", "gpu" or "tpu". A backend without rows of its own is held to the CPU's.
        case: the name of a case, for its exceptions.

    Raises:
        ValueError: there is no such row.

    Example:
        >>> tolerance("output", "float64") < tolerance("output", "float32")
        True
    """
    for held_to in (backend, "cpu"):
        if (case, quantity, dtype, held_to) in EXCEPTIONS:
            return EXCEPTIONS[case, quantity, dtype, held_to][0]
        if (quantity, dtype, held_to) in TABLE:
            return TABLE[quantity, dtype, held_to]
    raise ValueError(f"(quantity, dtype) must be a row of the tolerance table, got {(quantity, dtype)}")
