"""What has to agree, and whether it does.

The difference of two runs at a step is ``|a - b| / |b|``, of their losses at that step; b is PyTorch's reference run.

**float64.** At every step the difference is at most `tolerance("step loss", "float64")`: the two are one function,
through loss, gradients, optimizer, running statistics and dropout.

**float32.** Rounding grows from step to step, on either side, until the runs go ways of their own; no bound holds for
long. Two things are asked for:

1. in each of the first 10 steps the difference is at most `tolerance("step loss", "float32")`;
2. of the later steps at least R in R + 1 lie within the band. The band is made by R further PyTorch runs that differ
   from the reference in the order of their sums alone (`train.compare.orders`): at a step it reaches up to the largest
   difference that any of them has had from the reference so far. Were ours just one more such run, any of the R + 1
   would be equally likely the furthest from the reference at a step, so that at most one step in R + 1 would be
   expected to lie outside.

As a yardstick the share of the later steps is given for which each of the R runs lies within the band of the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flax_attn.testing import tolerance

FIRST = 10  # steps, in which float32 has to agree by itself


@dataclass(frozen=True)
class Verdict:
    """What came out; shares are of the steps after the first 10, None without any.

    Attributes:
        difference: (steps,), of ours from the reference.
        band: (steps,), how far PyTorch's other runs had come from it by then; None without such runs.
        tolerance: of the steps that are judged one by one: all in float64, the first 10 in float32.
        worst: the largest difference among those.
        share: of steps within the band.
        wanted: the share that is asked for; None where the band is only shown.
        yardsticks: the share for each of PyTorch's runs within the band of the others, where there are others.
    """

    difference: np.ndarray
    band: np.ndarray | None
    tolerance: float
    worst: float
    share: float | None
    wanted: float | None
    yardsticks: list[float]

    @property
    def agrees(self) -> bool:
        """Whether the steps that are judged one by one agree."""
        return self.worst <= self.tolerance  # not if it is NaN

    @property
    def stays_within(self) -> bool:
        """Whether enough of the other steps lie within the band."""
        return self.wanted is None or self.share is None or self.share >= self.wanted

    @property
    def holds(self) -> bool:
        """Whether everything does that is asked for."""
        return self.agrees and self.stays_within


def judge(dtype: str, backend: str, ours: np.ndarray, reference: np.ndarray, others: Sequence[np.ndarray]) -> Verdict:
    """Judges the losses (steps,) of our run by those of PyTorch's reference and of its other runs.

    Example:
        >>> reference = np.ones(12)
        >>> verdict = judge("float32", "cpu", reference, reference, [reference])
        >>> verdict.holds, verdict.share
        (True, 1.0)
    """
    difference = differences(ours, reference)
    spread = [differences(other, reference) for other in others]
    judged = difference if dtype == "float64" else difference[:FIRST]
    return Verdict(
        difference=difference,
        band=band_of(spread) if spread else None,
        tolerance=tolerance("step loss", dtype, backend),
        worst=float(np.max(judged)),
        share=share_within(difference, spread),
        wanted=len(others) / (len(others) + 1) if dtype == "float32" else None,
        yardsticks=[
            share
            for run, own in enumerate(spread)
            if (share := share_within(own, spread[:run] + spread[run + 1 :])) is not None
        ],
    )


def differences(losses: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``|a - b| / |b|`` at each step; 0 where both are equal.

    Example:
        >>> differences(np.array([0.0, 3.0]), np.array([0.0, 2.0])).tolist()
        [0.0, 0.5]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(losses - reference)
        return np.where(distance == 0, 0.0, distance / np.abs(reference))


def band_of(spread: Sequence[np.ndarray]) -> np.ndarray:
    """The largest of all differences up to each step.

    Example:
        >>> band_of([np.array([1, 3, 0]), np.array([2, 0, 1])]).tolist()
        [2, 3, 3]
    """
    band: np.ndarray = np.maximum.accumulate(np.max(spread, axis=0))
    return band


def share_within(difference: np.ndarray, spread: Sequence[np.ndarray]) -> float | None:
    """Of the steps after the first 10, the share within the band; None without such steps or without a band."""
    if not spread or len(difference) <= FIRST:
        return None
    within = np.isfinite(difference) & (difference <= band_of(spread))
    return float(np.mean(within[FIRST:]))
