"""What has to agree in a comparison, whether it does, and the picture of it.

Compared are the losses of all steps, by ``|a - b| / |b|``, and BatchNorm's running statistics after them, by the
relative error of each; b is PyTorch's reference run.

**float64.** No difference exceeds `tolerance("step loss", "float64")`: the two are one function, through loss,
gradients, optimizer, running statistics and dropout.

**float32.** Rounding errors grow from step to step on either side until the runs diverge, so no fixed bound holds for
long. Further PyTorch runs, which differ from the reference only in the order of their sums (`train.twin.Order`), show
how fast: the band reaches up to the largest difference that any of them has had so far. Ours may differ by up to
`NOISE_FACTOR` times that, as a few runs do not show the worst case, or `tolerance("step loss", "float32")` if larger.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from flax_attn.testing import relative_error, tolerance
from flax_attn.testing.tolerances import NOISE_FACTOR

from .plots import new_figure, plain_log

OURS, TWIN = "tab:orange", "tab:blue"


class Trajectory(NamedTuple):
    """A training run."""

    losses: np.ndarray  # (steps,), of each batch before its step
    seconds: np.ndarray  # (steps,)
    state_dict: dict[str, np.ndarray]  # the network at the end, under PyTorch's names

    def errors(self, reference: "Trajectory", learned: bool) -> dict[str, float]:
        """The relative error of each learned parameter, or of each of the running statistics."""
        return {
            name: relative_error(self.state_dict[name], expected)
            for name, expected in reference.state_dict.items()
            if ("running_" not in name) == learned and not name.endswith("num_batches_tracked")  # JAX's side has none
        }


def judge(dtype: str, ours: Trajectory, reference: Trajectory, others: Sequence[Trajectory] = ()) -> dict[str, Any]:
    """Judges our run against PyTorch's reference and its other runs; returns the verdict and what it rests on."""
    difference, *spread = (differences(run.losses, reference.losses) for run in (ours, *others))
    buffers, *buffers_spread = (run.errors(reference, learned=False) for run in (ours, *others))
    band = np.maximum.accumulate(np.max([np.zeros(len(difference)), *spread], axis=0))
    buffers_band = np.max([0.0, *(error for errors in buffers_spread for error in errors.values())])
    limit = tolerance("step loss", dtype, jax.default_backend())
    allowed, buffers_allowed = (np.maximum(limit, NOISE_FACTOR * each) for each in (band, buffers_band))
    agree = {
        "losses": bool(np.all(np.isfinite(difference) & (difference <= allowed))),
        "buffers": all(error <= buffers_allowed for error in buffers.values()),
    }
    losses = {
        "ours": ours.losses,
        "pytorch": reference.losses,
        "pytorch_in_other_orders": [run.losses for run in others],
    }
    return {
        "verdict": {"holds": all(agree.values()), **agree},
        "loss": {**losses, "difference": difference, "band": band, "allowed": allowed},
        "buffers": {"difference": buffers, "band": buffers_band, "allowed": buffers_allowed},
    }


def differences(losses: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``|a - b| / |b|`` at each step; 0 where both are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(losses - reference)
        return np.where(distance == 0, 0.0, distance / np.abs(reference))


def findings(found: dict[str, Any]) -> list[str]:
    """The verdict and what it rests on, in lines for the terminal."""
    loss, buffers, seconds = found["loss"], found["buffers"], found["seconds"]
    with np.errstate(invalid="ignore"):
        step = int(np.argmax(loss["difference"] / loss["allowed"]))  # NaN, if there is one
    words = {name: "agree" if found["verdict"][name] else "do not agree" for name in ("losses", "buffers")}
    return [
        f"losses {words['losses']}: they differ by {loss['difference'][step]:.2g} at step {step + 1}, allowed are "
        f"{loss['allowed'][step]:.2g}",
        f"buffers {words['buffers']}: they differ by {largest(buffers['difference'])}, allowed are "
        f"{buffers['allowed']:.2g}",
        f"parameters after all steps: they differ by {largest(found['parameters'])}",
        f"median time of a step: ours {1e3 * seconds['ours']:,.1f} ms, PyTorch {1e3 * seconds['pytorch']:,.1f} ms",
    ]


def largest(errors: dict[str, float]) -> str:
    """The largest difference, and whose it is."""
    name = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    return f"{errors[name]:.2g} ({name})"


def save_picture(path: Path, title: str, found: dict[str, Any]) -> None:
    """Draws the losses over the steps, and their differences with the band and what is allowed."""
    figure = new_figure(title, 9, 7.5)
    losses, apart = figure.subplots(2, 1, sharex=True)
    loss = found["loss"]
    steps = np.arange(1, len(loss["ours"]) + 1)
    floor = np.finfo(found["options"]["dtype"]).eps / 8  # the lower end of the axis, where equal losses are drawn
    losses.plot(steps, loss["pytorch"], color=TWIN, linewidth=3.5, alpha=0.45, label="PyTorch")
    losses.plot(steps, loss["ours"], color=OURS, linewidth=1.1, label="ours")
    plain_log(losses)
    losses.set(title="loss of each step", ylabel="cross-entropy")
    if loss["pytorch_in_other_orders"]:
        band = np.maximum(loss["band"], floor)
        apart.fill_between(steps, floor, band, color=TWIN, alpha=0.2, linewidth=0, label="PyTorch, in other orders")
    apart.plot(steps, np.maximum(loss["difference"], floor), ".-", color=OURS, linewidth=0.7, label="ours")
    apart.plot(steps, loss["allowed"], color="tab:red", label="allowed")
    apart.set(yscale="log", xlabel="step", title="difference from PyTorch's loss, relative")
    for ax in (losses, apart):
        ax.grid(alpha=0.3)
        ax.legend()
    figure.savefig(path, dpi=120)
