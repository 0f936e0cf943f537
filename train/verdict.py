"""What has to agree in a comparison, whether it does, and the picture of it.

The difference of two runs at a step is ``|a - b| / |b|``, of their losses at that step; b is PyTorch's reference run.

**float64.** At every step the difference is at most `tolerance("step loss", "float64")`: the two are one function,
through loss, gradients, optimizer, running statistics and dropout.

**float32.** Rounding errors grow from step to step on either side until the runs diverge, so no bound holds for long.
Two things are required:

1. in each of the first 10 steps the difference is at most `tolerance("step loss", "float32")`;
2. of the later steps at least R in R + 1 lie within the band. The band comes from R further PyTorch runs that differ
   from the reference only in the order of their sums (`train.twin.Order`): at a step it reaches up to the largest
   difference that any of them has had from the reference so far. If ours were just one more such run, any of the R + 1
   would be equally likely to be the furthest from the reference at a step, so that about one step in R + 1 would be
   expected to lie outside.

As a yardstick the share of the later steps is given for which each of the R runs lies within the band of the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flax_attn.testing import tolerance

from .plots import plain_log
from .text import drawable

FIRST = 10  # steps that have to agree one by one in float32
OURS, TWIN = "tab:orange", "tab:blue"


@dataclass(frozen=True)
class Verdict:
    """Shares are of the steps after the first 10, None without any."""

    difference: np.ndarray  # (steps,), of ours from the reference
    band: np.ndarray | None  # (steps,), how far PyTorch's other runs had come from it by then; None without such runs
    judged: int  # the steps that are judged one by one: all in float64, the first 10 in float32
    tolerance: float  # for those
    share: float | None  # of the other steps within the band
    wanted: float | None  # the required share; None where the band is only shown
    yardsticks: list[float]  # the share for each of PyTorch's runs within the band of the others

    @property
    def worst(self) -> float:
        """The largest difference among the steps that are judged one by one."""
        return float(np.max(self.difference[: self.judged]))

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
        """Whether all that is required holds."""
        return self.agrees and self.stays_within


def judge(dtype: str, backend: str, ours: np.ndarray, reference: np.ndarray, *others: np.ndarray) -> Verdict:
    """Judges the losses (steps,) of our run against those of PyTorch's reference and of its other runs."""
    difference = differences(ours, reference)
    spread = [differences(other, reference) for other in others]
    shares = [share_within(own, spread[:run] + spread[run + 1 :]) for run, own in enumerate(spread)]
    return Verdict(
        difference=difference,
        band=band_of(spread) if spread else None,
        judged=len(ours) if dtype == "float64" else min(FIRST, len(ours)),
        tolerance=tolerance("step loss", dtype, backend),
        share=share_within(difference, spread),
        wanted=len(others) / (len(others) + 1) if dtype == "float32" else None,
        yardsticks=[share for share in shares if share is not None],
    )


def differences(losses: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``|a - b| / |b|`` at each step; 0 where both are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(losses - reference)
        return np.where(distance == 0, 0.0, distance / np.abs(reference))


def band_of(spread: Sequence[np.ndarray]) -> np.ndarray:
    """The largest of all differences up to each step."""
    band: np.ndarray = np.maximum.accumulate(np.max(spread, axis=0))
    return band


def share_within(difference: np.ndarray, spread: Sequence[np.ndarray]) -> float | None:
    """Of the steps after the first 10, the share within the band; None without such steps or without a band."""
    if not spread or len(difference) <= FIRST:
        return None
    within = np.isfinite(difference) & (difference <= band_of(spread))
    return float(np.mean(within[FIRST:]))


def findings(verdict: Verdict, loss: dict[str, Any]) -> list[str]:
    """The verdict, a line per requirement."""
    steps, lines = len(verdict.difference), []
    for name, losses in (("ours", loss["ours"]), ("PyTorch", loss["pytorch"])):
        for step in np.flatnonzero(~np.isfinite(losses))[:1]:
            lines.append(f"the loss of {name} is {losses[step]} at step {step + 1}")
    which = f"all {steps}" if verdict.judged == steps else f"the first {verdict.judged}"
    lines.append(
        f"{which} steps: the losses differ by at most {verdict.worst:.2g}, allowed are {verdict.tolerance:g}: "
        f"{'holds' if verdict.agrees else 'does not hold'}"
    )
    if verdict.share is None:
        return lines
    later = f"of the {steps - FIRST} steps after the first {FIRST} {verdict.share:.1%} lie within the band"
    if verdict.yardsticks:
        low, high = min(verdict.yardsticks), max(verdict.yardsticks)
        later += f" (PyTorch's own runs within that of the others: {low:.1%} to {high:.1%})"
    if verdict.wanted is not None:
        later += f", {verdict.wanted:.1%} are required: {'holds' if verdict.stays_within else 'does not hold'}"
    return [*lines, later]


def save_picture(path: Path, title: str, dtype: str, verdict: Verdict, loss: dict[str, Any]) -> None:
    """Draws the losses over the steps, and the difference with the band and the tolerance."""
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    figure.suptitle(drawable(title), parse_math=False)  # a path may hold dollars
    losses, apart = figure.subplots(2, 1, sharex=True)
    steps = np.arange(1, len(verdict.difference) + 1)
    floor = np.finfo(dtype).eps / 8  # the lower end of the axis, where equal losses are drawn
    losses.plot(steps, loss["pytorch"], color=TWIN, linewidth=3.5, alpha=0.45, label="PyTorch")
    losses.plot(steps, loss["ours"], color=OURS, linewidth=1.1, label="ours")
    plain_log(losses)
    losses.set(title="loss of each step", ylabel="cross-entropy")
    losses.legend()
    if verdict.band is not None:
        label = f"band: PyTorch, sums in {len(loss['pytorch_in_other_orders'])} other orders"
        band = np.maximum(verdict.band, floor)
        apart.fill_between(steps, floor, band, color=TWIN, alpha=0.2, linewidth=0, label=label)
    difference = np.maximum(verdict.difference, floor)
    apart.plot(steps, difference, ".-", color=OURS, linewidth=0.7, markersize=4, label="ours")
    limit = verdict.tolerance
    apart.plot([1, verdict.judged], [limit] * 2, color="tab:red", label=f"tolerance {limit:g}")
    apart.xaxis.set_major_locator(MaxNLocator(integer=True))
    apart.set(yscale="log", xlabel="step", title="difference from PyTorch's loss, relative")
    apart.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, frameon=False)
    for ax in (losses, apart):
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
