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
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from flax_attn.testing import tolerance

from .plots import new_figure, plain_log

FIRST = 10  # steps that have to agree one by one in float32
OURS, TWIN = "tab:orange", "tab:blue"


def judge(dtype: str, backend: str, ours: np.ndarray, reference: np.ndarray, *others: np.ndarray) -> dict[str, Any]:
    """Judges the losses (steps,) of our run against those of PyTorch's reference and of its other runs.

    Returns the verdict and the losses as in compare.json. Shares are of the steps after the first 10, None without any.
    """
    difference = differences(ours, reference)
    spread = [differences(other, reference) for other in others]
    share = share_within(difference, spread)
    shares = [share_within(own, spread[:run] + spread[run + 1 :]) for run, own in enumerate(spread)]
    verdict = {
        "tolerance": tolerance("step loss", dtype, backend),
        "worst": float(np.max(difference[: FIRST if dtype == "float32" else None])),
        "share_within_band": share,
        "share_wanted": len(others) / (len(others) + 1) if dtype == "float32" else None,  # else the band is only shown
        "share_of_each_pytorch_run": [share for share in shares if share is not None],
    }
    return {
        "verdict": {"holds": agrees(verdict) and stays_within(verdict), **verdict},
        "loss": {
            "ours": ours,
            "pytorch": reference,
            "pytorch_in_other_orders": list(others),
            "difference": difference,
            "band": band_of(spread) if spread else None,
        },
    }


def agrees(verdict: dict[str, Any]) -> bool:
    """Whether the steps that are judged one by one agree: all in float64, the first 10 in float32."""
    return bool(verdict["worst"] <= verdict["tolerance"])  # not if it is NaN


def stays_within(verdict: dict[str, Any]) -> bool:
    """Whether enough of the other steps lie within the band."""
    share, wanted = verdict["share_within_band"], verdict["share_wanted"]
    return wanted is None or share is None or bool(share >= wanted)


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


def findings(found: dict[str, Any]) -> list[str]:
    """The verdict, a line per requirement."""
    verdict, loss, lines = found["verdict"], found["loss"], []
    for name, losses in (("ours", loss["ours"]), ("PyTorch", loss["pytorch"])):
        for step in np.flatnonzero(~np.isfinite(losses))[:1]:
            lines.append(f"the loss of {name} is {losses[step]} at step {step + 1}")
    steps = len(loss["ours"])
    which = f"all {steps}" if verdict["share_wanted"] is None or steps <= FIRST else f"the first {FIRST}"
    lines.append(
        f"{which} steps: the losses differ by at most {verdict['worst']:.2g}, allowed are {verdict['tolerance']:g}: "
        f"{'holds' if agrees(verdict) else 'does not hold'}"
    )
    if verdict["share_within_band"] is None:
        return lines
    later = (
        f"of the {steps - FIRST} steps after the first {FIRST} {verdict['share_within_band']:.1%} lie within the band"
    )
    if yardsticks := verdict["share_of_each_pytorch_run"]:
        later += f" (PyTorch's own runs within that of the others: {min(yardsticks):.1%} to {max(yardsticks):.1%})"
    if verdict["share_wanted"] is not None:
        word = "holds" if stays_within(verdict) else "does not hold"
        later += f", {verdict['share_wanted']:.1%} are required: {word}"
    return [*lines, later]


def save_picture(path: Path, title: str, found: dict[str, Any]) -> None:
    """Draws the losses over the steps, and the difference with the band and the tolerance."""
    figure = new_figure(title, 9, 7.5)
    losses, apart = figure.subplots(2, 1, sharex=True)
    loss, dtype, limit = found["loss"], found["options"]["dtype"], found["verdict"]["tolerance"]
    steps = np.arange(1, len(loss["ours"]) + 1)
    floor = np.finfo(dtype).eps / 8  # the lower end of the axis, where equal losses are drawn
    losses.plot(steps, loss["pytorch"], color=TWIN, linewidth=3.5, alpha=0.45, label="PyTorch")
    losses.plot(steps, loss["ours"], color=OURS, linewidth=1.1, label="ours")
    plain_log(losses)
    losses.set(title="loss of each step", ylabel="cross-entropy")
    losses.legend()
    if loss["band"] is not None:
        label = f"band: PyTorch, sums in {len(loss['pytorch_in_other_orders'])} other orders"
        band = np.maximum(loss["band"], floor)
        apart.fill_between(steps, floor, band, color=TWIN, alpha=0.2, linewidth=0, label=label)
    difference = np.maximum(loss["difference"], floor)
    apart.plot(steps, difference, ".-", color=OURS, linewidth=0.7, markersize=4, label="ours")
    judged = len(steps) if dtype == "float64" else min(FIRST, len(steps))
    apart.plot([1, judged], [limit] * 2, color="tab:red", label=f"tolerance {limit:g}")
    apart.xaxis.set_major_locator(MaxNLocator(integer=True))
    apart.set(yscale="log", xlabel="step", title="difference from PyTorch's loss, relative")
    apart.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, frameon=False)
    for ax in (losses, apart):
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
