"""The relative error between arrays, and rounding to narrower dtypes."""

import numpy as np


def relative_error(got: np.ndarray, reference: np.ndarray) -> float:
    """``norm(got - reference) / norm(reference)``; NaN where either is not finite, infinite where the shapes differ.

    Infinite also where one of them is complex and the other is not.

    Example:
        >>> relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
        0.1
    """
    if got.shape != reference.shape or np.iscomplexobj(got) != np.iscomplexobj(reference):
        return float("inf")
    wide = np.complex128 if np.iscomplexobj(got) else np.float64
    got, reference = got.astype(wide), reference.astype(wide)
    # Scaled to around 1: squares of very small numbers would underflow, those of very large ones overflow.
    scale = np.max(np.abs(reference), initial=0.0) or np.max(np.abs(got), initial=0.0)
    if np.isfinite(scale) and scale > 0:
        got, reference = got / scale, reference / scale
    with np.errstate(invalid="ignore"):  # an infinity on both sides; the difference is NaN
        difference, norm = float(np.linalg.norm(got - reference)), float(np.linalg.norm(reference))
    if norm == 0:
        return 0.0 if difference == 0 else float("inf") if np.isfinite(difference) else float("nan")
    return difference / norm if np.isfinite(norm) else float("nan")


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """Rounds floats to a narrower dtype, stored in a dtype that every library supports; others are unchanged.

    Example:
        >>> rounded(np.array([1.0, 1.001]), "bfloat16").tolist()
        [1.0, 1.0]
    """
    if np.iscomplexobj(array):
        return array if dtype == "float64" else array.astype(np.complex64)
    if not np.issubdtype(array.dtype, np.floating) or dtype == "float64":
        return array
    if dtype == "bfloat16":
        import ml_dtypes  # comes with jax

        return array.astype(ml_dtypes.bfloat16).astype(np.float32)
    return array.astype(dtype)
