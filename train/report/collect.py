"""Gathers what the runs of a report came to, from their folders and from other reports."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from ..config import Config
from ..networks import build_network
from ..runs import DATA, RunFolder, read_json
from ..text import data_title
from .known import Known
from .options import Options
from .outcomes import Outcome, Report
from .plan import Planned
from .work import Log, is_done


def collect(options: Options, runs: Sequence[Planned], log: Log, known: Known) -> Report:
    """Reads what is done, from the runs' folders where they are there.

    Raises:
        ValueError: nothing is done yet, a file that cannot be read, or runs on different images.
    """
    done, failed, tries = log.done(), log.failed(), log.lines()
    found = {run.key: known.outcomes[run.key] for run in runs if run.key in known.outcomes}
    ready = [run for run in runs if is_done(run, done)]
    if not ready and not found:
        names = ", ".join(run.name for run in runs if run.name in failed) or "none that was tried"
        raise ValueError(f"--runs {options.runs} must hold runs that are done, got none; failed: {names}")
    seen = {run.path: read_json(run.path / DATA) for run in ready}
    images = known.images or seen[ready[0].path]
    for path, here in seen.items():
        if here != images:
            first = "--known" if known.images else ready[0].path
            raise ValueError(f"all runs must have the same images, got others in {path} than in {first}")
    size, counts = tuple(images["image_size"]), {}
    for run in ready:
        if run.row not in counts:
            counts[run.row] = parameters(run.config, *size)
        found[run.key] = _outcome(run, counts[run.row], [line for line in tries if line["run"] == run.name])
    return Report(
        options=_shown(options),
        images=images,
        planned=len(runs),
        failed=[run.name for run in runs if run.name in failed and run.key not in found],
        outcomes=[found[run.key] for run in runs if run.key in found],
    )


def _outcome(run: Planned, count: int, tries: Sequence[dict[str, Any]]) -> Outcome:
    history = RunFolder(run.path).history()
    return Outcome(
        row=run.row,
        protocol=run.protocol,
        side=run.side,
        seed=run.seed,
        parameters=count,
        train_errors=[metrics.train_error for metrics in history],
        test_errors=[metrics.test_error for metrics in history],
        test_accuracy=history[-1].test_accuracy,
        images_per_second=statistics.median(metrics.images_per_second for metrics in history),
        maps=read_json(run.path / "localisation.json")["maps"],
        seconds=sum(line["seconds"] for line in tries),
        where=tries[-1]["where"],
    )


def parameters(config: Config, height: int, width: int) -> int:
    """How many numbers the network of a run learns."""
    network = nnx.eval_shape(lambda: build_network(config, height, width))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))


def _shown(options: Options) -> dict[str, Any]:
    names = {name: Path(getattr(options, name)).name for name in ("runs", "out")}
    known = [Path(file).name for file in options.known]
    return {**dataclasses.asdict(options), **names, "data": data_title(options.data), "known": known}
