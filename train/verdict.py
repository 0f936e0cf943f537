"""What has to agree in a comparison, whether it does, and the picture of it.

Compared are the losses of all steps, by ``|a - b| / |b|``, and BatchNorm's running statistics after them, by the
relative error of each; b is PyTorch's reference run.

**float64.** No difference exceeds `tolerance("step loss", "float64")`: the two are one function, through loss,
gradients, optimizer, running statistics and dropout.

**float32.** Rounding errors grow from step to step on either side until the runs diverge, so no fixed bound holds for
long. Further PyTorch runs, which differ from the reference only in the order of their sums (`train.twin.Twin`), show
how fast: the band reaches up to the largest difference that any of them has had so far. Ours may differ by up to
`NOISE_FACTOR` times that, as a few runs do not show the worst case, or `tolerance("step loss", "float32")` if larger.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from flax_attn.testing import relative_error, tolerance
from flax_attn.testing.tolerances import NOISE_FACTOR

from .plots import new_figure, plain_log, save


class Trajectory(NamedTuple):
    """A training run."""

    losses: np.ndarray  # (steps,), of each batch before its step
    state_dict: Mapping[str, np.ndarray]  # the network at the end, under PyTorch's names

    def buffers(self, reference: "Trajectory") -> np.ndarray:
        """The relative error of the running statistics, (buffers,)."""
        names = [name for name in reference.state_dict if "running_" in name]
        return np.array([relative_error(self.state_dict[name], reference.state_dict[name]) for name in names])


def judge(dtype: str, ours: Trajectory, reference: Trajectory, *others: Trajectory) -> dict[str, Any]:
    """Judges our run against PyTorch's reference and its other runs; returns the verdict and what it rests on."""
    limit = tolerance("step loss", dtype, jax.default_backend())

    def found(difference: np.ndarray, *spread: np.ndarray) -> dict[str, Any]:
        band = np.max([np.zeros(len(difference)), *spread], axis=0)
        allowed = np.maximum(limit, NOISE_FACTOR * band)
        agree = bool(np.all(np.isfinite(difference) & (difference <= allowed)))
        return {"agree": agree, "difference": difference, "band": band, "allowed": allowed}

    apart, *spread = (differences(run.losses, reference.losses) for run in (ours, *others))
    losses = found(apart, *map(np.maximum.accumulate, spread))
    buffers = found(*(run.buffers(reference).max(keepdims=True) for run in (ours, *others)))
    losses |= {"ours": ours.losses, "pytorch": reference.losses}
    return {"holds": losses["agree"] and buffers["agree"], "losses": losses, "buffers": buffers}


def differences(losses: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``|a - b| / |b|`` at each step; 0 where both are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(losses - reference)
        return np.where(distance == 0, 0.0, distance / np.abs(reference))


def findings(found: dict[str, Any]) -> list[str]:
    """The verdict and what it rests on, in lines for the terminal."""
    lines = []
    for name, at in (("losses", " at step {}"), ("buffers", "")):
        difference, allowed = found[name]["difference"], found[name]["allowed"]
        with np.errstate(invalid="ignore"):
            worst = int(np.argmax(difference / allowed))  # NaN, if there is one
        agree = "agree" if found[name]["agree"] else "do not agree"
        apart = f"they differ by {difference[worst]:.2g}{at.format(worst + 1)}"
        lines.append(f"{name} {agree}: {apart}, {allowed[worst]:.2g} is allowed")
    return lines


def save_picture(path: Path, title: str, found: dict[str, Any]) -> None:
    """Draws the losses over the steps, and their differences with the band and what is allowed."""
    figure, loss = new_figure(title, 9, 7.5), found["losses"]
    losses, apart = figure.subplots(2, 1, sharex=True)
    steps = np.arange(1, len(loss["ours"]) + 1)
    floor = np.finfo(found["options"]["dtype"]).eps / 8  # the lower end of the axis, where equal losses are drawn
    losses.plot(steps, loss["pytorch"], color="tab:blue", linewidth=3.5, alpha=0.45, label="PyTorch")
    losses.plot(steps, loss["ours"], color="tab:orange", linewidth=1.1, label="ours")
    losses.set(title="loss of each step", ylabel="cross-entropy")
    plain_log(losses)
    if loss["band"].any():
        apart.fill_between(steps, floor, np.maximum(loss["band"], floor), alpha=0.2, label="PyTorch, in other orders")
    apart.plot(steps, np.maximum(loss["difference"], floor), ".-", color="tab:orange", linewidth=0.7, label="ours")
    apart.plot(steps, loss["allowed"], color="tab:red", label="allowed")
    apart.set(yscale="log", xlabel="step", title="difference from PyTorch's loss, relative")
    for ax in (losses, apart):
        ax.grid(alpha=0.3)
        ax.legend()
    save(figure, path)
