"""``python -m train compare``: the PyTorch twin and our network, trained alike and compared with each other.

Both start from the same weights and get the same images, patches, order, dropout masks and learning rates. Ours is
trained by `train.loop.Run`, as any run. `train.verdict` says what has to agree, and how far.
"""

import contextlib
import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from flax_attn import to_torch
from flax_attn.testing.flax_side import cast

from .config import PatchConfig, check, told_default
from .data import Source
from .data.feed import check_batch_size
from .loop import Run
from .runs import check_run_dir, machine, write_whole
from .show import say
from .tasks import task_of
from .tasks.patch import build_network
from .text import data_title, printable
from .verdict import Trajectory, findings, judge, save_picture

PROGRAM = "python -m train compare"
JSON, PICTURE = "compare.json", "compare.png"
OTHERS = 4  # further PyTorch runs in float32


@dataclass(frozen=True)
class Options:
    """Trains a network and its PyTorch twin on the same batches and compares them.

    Attributes:
        network: The block before the classifier, as for training.
        data: The images of the patch task, as for training.
        token_order: What a token is, for blocks over tokens.
        position: The position encoding in front of a block over tokens.
        batch_size: Images per step.
        steps: Optimizer steps on either side.
        learning_rate: Adam's, the maximum of a one-cycle schedule.
        dtype: Dtype of everything. float64 tests whether both compute the same; float32 whether they round alike, by
            further PyTorch runs that differ only in the order of their sums.
        seed: Seed of the weights, patches, order and dropout.
        run_dir: The folder for results, new or empty.
    """

    network: str = "cbam"
    data: Annotated[str, tyro.conf.arg(metavar="KIND[:PATH]")] = "synthetic"
    token_order: Literal["pixels", "article"] = "pixels"
    position: Literal["none", "sine", "learned"] = "none"
    batch_size: int = 32
    steps: int = 50
    learning_rate: float = 3e-3
    dtype: Literal["float64", "float32"] = "float64"
    seed: int = 0
    run_dir: Annotated[str | None, told_default("runs/TIME-NETWORK", "DIR")] = None

    @property
    def config(self) -> PatchConfig:
        """The options of a training run."""
        given: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "steps"}
        return PatchConfig(**given)


def main(argv: Sequence[str]) -> int:
    """Trains both, shows and writes the results; returns 1 where the two do not agree."""
    options = tyro.cli(Options, prog=PROGRAM, args=argv)
    from .twin import Twin  # PyTorch, after --help

    check(options.config)
    if options.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {options.steps}")
    folder, console = check_run_dir(options.config), Console()
    source = task_of(options.config).open(options.data)
    check_batch_size(options.batch_size, source.train)
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{options.network} in {options.dtype}: ours against PyTorch"
    say(console, f"{title}, {options.steps} steps of batches of {options.batch_size}")
    ours = train("ours", Run, options, source)
    orders = range(1 + OTHERS * (options.dtype == "float32"))
    theirs = [train(f"PyTorch, order {n}", partial(Twin, order=n), options, source) for n in orders]
    settings = {"JAX_ENABLE_X64": options.dtype == "float64", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    here = machine(options.config) | {"torch": version("torch"), **settings}
    found = judge(options.dtype, ours, *theirs) | {"options": dataclasses.asdict(options), "machine": here}
    write_whole(folder / JSON, json.dumps(found, indent=1, default=np.ndarray.tolist) + "\n")
    save_picture(folder / PICTURE, f"{title}, {data_title(options.data)}", found)
    for line in (*findings(found), f"run folder: {printable(folder)}"):
        say(console, line)
    if found["holds"]:
        return 0
    print(f"error: ours and PyTorch's {options.network} do not agree in {options.dtype}", file=sys.stderr)
    return 1


def train(name: str, kind: Callable[..., Run], options: Options, source: Source) -> Trajectory:
    """Trains one side, all of it in the dtype of ``options``."""
    with jax.enable_x64(False):  # the weights of a training run, also where they are then float64
        built = build_network(options.config, *source.shape)
    # Off the CPU, JAX's default precision would round factors.
    with jax.enable_x64(options.dtype == "float64"), jax.default_matmul_precision("highest"):
        network = cast(built, options.dtype)
        with contextlib.closing(kind(options.config, source, total_steps=options.steps, network=network)) as run:
            steps = (scores for epoch in itertools.count() for scores in run.train_epoch(epoch))  # one by one
            taken = track(itertools.islice(steps, options.steps), name, options.steps)
            return Trajectory(np.concatenate([scores.error for scores in taken]), to_torch(run.network))
