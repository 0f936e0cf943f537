"""Everything that a comparison found, and the file that holds it."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_attn.testing import relative_error
from flax_attn.testing.flax_side import parameter_paths
from torch_ref.cases import CASES

from ..runs import write_whole
from .options import Options
from .problem import PRECISION, Problem, Trajectory
from .verdict import Verdict, judge

PACKAGES = ("jax", "flax", "optax", "torch", "numpy")


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        options: what was asked for.
        ours: our run.
        reference: PyTorch's.
        others: PyTorch's runs with its sums in other orders.
        verdict: on the losses.
        parameters: the relative difference of each trained parameter, by PyTorch's name.
        noise: of those parameters whose gradient is zero by algebra: what moves them is rounding alone.
        buffers: of each buffer.
        where: what each side computed on, and their versions.
    """

    options: Options
    ours: Trajectory
    reference: Trajectory
    others: Sequence[Trajectory]
    verdict: Verdict
    parameters: dict[str, float]
    noise: dict[str, float]
    buffers: dict[str, float]
    where: dict[str, str]


def make_result(problem: Problem, ours: Trajectory, reference: Trajectory, others: Sequence[Trajectory]) -> Result:
    """Holds the runs against each other."""
    errors = {
        name: relative_error(ours.state_dict[name], expected)
        for name, expected in reference.state_dict.items()
        if not name.endswith("num_batches_tracked")  # JAX's side has none
    }
    learned, kind = parameter_paths(problem.network), type(problem.network).__name__
    noise = {name for case in CASES if case.class_name == kind for name in case.zero_gradients}
    curves = [other.losses for other in others]
    return Result(
        options=problem.options,
        ours=ours,
        reference=reference,
        others=others,
        verdict=judge(problem.options.dtype, jax.default_backend(), ours.losses, reference.losses, curves),
        parameters={name: error for name, error in errors.items() if name in learned - noise},
        noise={name: error for name, error in errors.items() if name in noise},
        buffers={name: error for name, error in errors.items() if name not in learned},
        where=where(problem),
    )


def where(problem: Problem) -> dict[str, str]:
    """Devices, threads and versions."""
    import torch

    kind = jax.devices()[0].device_kind
    return {
        "ours": f"{problem.layout.devices} x {kind}, products at {PRECISION!r} precision",
        "PyTorch": f"cpu, {torch.get_num_threads()} threads",
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
    }


def write_json(path: Path, result: Result) -> None:
    """Writes all numbers; what is no number becomes null."""
    write_whole(path, json.dumps(_plain(to_dict(result)), indent=1, allow_nan=False) + "\n")


def to_dict(result: Result) -> dict[str, Any]:
    """All numbers by name."""
    verdict = result.verdict
    return {
        "options": dataclasses.asdict(result.options),
        "where": result.where,
        "verdict": {
            "holds": verdict.holds,
            "tolerance": verdict.tolerance,
            "worst": verdict.worst,
            "share_within_band": verdict.share,
            "share_wanted": verdict.wanted,
            "share_of_each_pytorch_run": verdict.yardsticks,
        },
        "loss": {
            "ours": result.ours.losses,
            "pytorch": result.reference.losses,
            "pytorch_in_other_orders": [other.losses for other in result.others],
            "difference": verdict.difference,
            "band": verdict.band,
        },
        "seconds": {
            "ours": {"median": result.ours.step_time, "steps": result.ours.seconds},
            "pytorch": {"median": result.reference.step_time, "steps": result.reference.seconds},
        },
        "parameters": result.parameters,
        "parameters_with_zero_gradient": result.noise,
        "buffers": result.buffers,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | list):
        return [_plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
