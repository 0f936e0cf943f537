"""``python -m train compare``: the PyTorch twin and our network, trained alike and compared with each other.

Both start from the same weights and get the same images, patches, order, dropout masks and learning rates. Ours is
trained by `train.loop.Run`, as any run. `train.verdict` says what has to agree, and how far.
"""

import contextlib
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from flax_attn import to_torch
from flax_attn.networks.patch import PatchNetwork
from flax_attn.testing.flax_side import cast

from .config import PatchConfig, check, read_options, told_default
from .data import Source, open_source
from .data.feed import check_batch_size
from .loop import Run
from .runs import check_run_dir, machine, write_whole
from .show import say
from .step import network_of
from .tasks.patch import build_network
from .text import data_title, printable
from .verdict import Trajectory, findings, judge, save_picture

if TYPE_CHECKING:  # PyTorch need not be installed
    from .twin import Twin

PROGRAM = "python -m train compare"
JSON, PICTURE = "compare.json", "compare.png"


@dataclass(frozen=True)
class Options:
    """Trains a network and its PyTorch twin on the same batches and compares them.

    Attributes:
        network: The block before the classifier, as for training.
        data: The images of the patch task, as for training.
        patches: Patches by image, or by the place in the batch alone.
        token_order: What a token is, for blocks over tokens.
        position: The position encoding in front of a block over tokens.
        batch_size: Images per step.
        steps: Optimizer steps on either side.
        learning_rate: Adam's, the maximum of a one-cycle schedule.
        dtype: Dtype of everything. float64 tests whether both compute the same, float32 whether they round alike.
        seed: Seed of the weights, patches, order and dropout.
        runs: In float32, further PyTorch runs, which differ only in the order of their sums; they make the band.
        run_dir: The folder for results, new or empty.
    """

    network: str = "cbam"
    data: Annotated[str, tyro.conf.arg(metavar="KIND[:PATH]")] = "synthetic"
    patches: Literal["per_image", "article"] = "per_image"
    token_order: Literal["pixels", "article"] = "pixels"
    position: Literal["none", "sine", "learned"] = "none"
    batch_size: int = 32
    steps: int = 50
    learning_rate: float = 3e-3
    dtype: Literal["float64", "float32"] = "float64"
    seed: int = 0
    runs: int = 4
    run_dir: Annotated[str | None, told_default("runs/TIME-NETWORK", "DIR")] = None

    @property
    def config(self) -> PatchConfig:
        """The options of a training run."""
        given: dict[str, Any] = {name: value for name, value in vars(self).items() if name not in ("steps", "runs")}
        return PatchConfig(**given)


def main(argv: Sequence[str]) -> int:
    """Trains both, shows and writes the results; returns 1 where the two do not agree."""
    options = read_options(Options, PROGRAM, argv)
    from .twin import Order, OurMasks, Twin  # PyTorch, after --help

    check(options.config)
    for name in ("steps", "runs"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}")
    folder, console = check_run_dir(options.config), Console()
    source = open_source(options.data)
    check_batch_size(options.batch_size, source.train)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--run-dir must be a writable folder, got {folder}: {error}") from error
    title = f"{options.network} in {options.dtype}: ours against PyTorch"
    say(console, f"{title}, {options.steps} steps of batches of {options.batch_size}")
    with settings(options.dtype):
        run, network = start(options, source)
        with contextlib.closing(run):
            ours = train_ours(run, options.steps)
            theirs = [
                train_twin(Twin(run, network, Order(number, options.seed), OurMasks(network)), options.steps)
                for number in range(1 + options.runs * (options.dtype == "float32"))
            ]
    found = result(options, network, ours, *theirs)
    write_whole(folder / JSON, json.dumps(found, indent=1, default=np.ndarray.tolist) + "\n")
    save_picture(folder / PICTURE, f"{title}, {data_title(options.data)}", found)
    for line in (*findings(found), f"run folder: {printable(folder)}"):
        say(console, line)
    if found["verdict"]["holds"]:
        return 0
    print(f"error: ours and PyTorch's {options.network} do not agree in {options.dtype}", file=sys.stderr)
    return 1


@contextlib.contextmanager
def settings(dtype: str) -> Iterator[None]:
    """JAX's settings for a comparison in ``dtype``; off the CPU its default precision would round factors."""
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        yield


def start(options: Options, source: Source) -> tuple[Run, PatchNetwork]:
    """Our run, and its network before the first step; to be used within `settings`."""
    with jax.enable_x64(False):  # the weights of a training run, also where they are then float64
        built = build_network(options.config, *source.shape)
    network: Any = cast(built, options.dtype)
    network.train()
    return Run(options.config, source, total_steps=options.steps, network=network), network


def train_ours(run: Run, steps: int) -> Trajectory:
    """Trains our network, for so many steps."""
    return Trajectory(*_train(run, "ours", steps), to_torch(network_of(run.state)))


def train_twin(twin: "Twin", steps: int) -> Trajectory:
    """Trains the twin, in the same way."""
    losses, seconds = _train(twin, f"PyTorch, {twin.order}", steps)
    return Trajectory(losses, seconds, {name: tensor.numpy() for name, tensor in twin.network.state_dict().items()})


def _train(side: "Run | Twin", name: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    epochs: Iterator[Any] = (step for epoch in itertools.count() for step in side.train_epoch(epoch))
    taken, began = [], time.perf_counter()
    for _, scores in track(itertools.islice(epochs, steps), name, steps):
        taken.append((float(scores.error), time.perf_counter() - began))
        began = time.perf_counter()
    losses, seconds = np.transpose(taken)
    return losses, seconds


def result(options: Options, network: PatchNetwork, ours: Trajectory, *theirs: Trajectory) -> dict[str, Any]:
    """All numbers of a comparison by name; ``theirs`` are PyTorch's reference and its other runs."""
    from torch_ref.cases import CASES

    reference, *others = theirs
    block = type(network.attn1).__name__
    noise = tuple(ending for case in CASES if case.class_name == block for ending in case.zero_gradients)
    parameters = ours.errors(reference, learned=True)
    return {
        "options": dataclasses.asdict(options),
        **judge(options.dtype, ours, reference, others),
        "parameters": {name: error for name, error in parameters.items() if not name.endswith(noise)},
        "seconds": {"ours": float(np.median(ours.seconds)), "pytorch": float(np.median(reference.seconds))},
        "machine": machine(jax.local_device_count()) | {"torch": version("torch")},
    }
