"""``python -m train compare``: the PyTorch twin and our network, trained alike and compared with each other.

Both start from the same weights and get the same images, patches, order, dropout masks and learning rates. Ours is
trained by `train.loop.Run`, as any run. `train.verdict` says what has to agree, and how far.
"""

import dataclasses
import importlib.util
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from flax_attn import to_torch
from flax_attn.networks.patch import PatchNetwork
from flax_attn.testing import relative_error
from flax_attn.testing.flax_side import cast, parameter_paths

from .config import PatchConfig, check, read_options, told_default
from .data import Source, open_source
from .data.feed import check_batch_size
from .data.source import RESIDENT_BYTES
from .devices import Layout
from .loop import Run
from .runs import check_run_dir, write_whole
from .show import Bar, looking, say
from .signals import INTERRUPTED
from .step import network_of
from .tasks.patch import build_network
from .text import EXHAUSTED, data_title, first_line, printable
from .verdict import FIRST, findings, judge, save_picture

if TYPE_CHECKING:  # PyTorch need not be installed
    from .twin import Twin

PROGRAM = "python -m train compare"
JSON, PICTURE = "compare.json", "compare.png"
PRECISION = "highest"  # of matrix products; off the CPU the default would round their factors
PACKAGES = ("jax", "flax", "optax", "torch", "numpy")

Progress = Callable[[], None]  # called after each step


@dataclass(frozen=True)
class Options:
    """Trains a network and its PyTorch twin on the same batches and compares them.

    Attributes:
        network: The block before the classifier, as for training.
        data: The images of the patch task, as for training; few enough to fit on the device.
        patches: Patches by image, or by the place in the batch alone.
        token_order: What a token is, for blocks over tokens.
        position: The position encoding in front of a block over tokens.
        batch_size: Images per step.
        shuffle: Whether each epoch has its own random order, or file order.
        steps: Optimizer steps on either side.
        learning_rate: Adam's, or its maximum under a schedule.
        schedule: The learning rate over the steps.
        dtype: Dtype of everything. float64 tests whether both compute the same, float32 whether they round alike.
        seed: Seed of the weights, patches, order and dropout.
        runs: Further PyTorch runs, which differ only in the order of their sums; they make the band.
        run_dir: The folder for results, new or empty.
    """

    network: str = "cbam"
    data: Annotated[str, tyro.conf.arg(metavar="KIND[:PATH]")] = "synthetic"
    patches: Literal["per_image", "article"] = "per_image"
    token_order: Literal["pixels", "article"] = "pixels"
    position: Literal["none", "sine", "learned"] = "none"
    batch_size: int = 32
    shuffle: bool = True
    steps: int = 200
    learning_rate: float = 3e-3
    schedule: Literal["constant", "one_cycle"] = "one_cycle"
    dtype: Literal["float64", "float32"] = "float32"
    seed: int = 0
    runs: int = 4
    run_dir: Annotated[str | None, told_default("runs/TIME-NETWORK-compare", "DIR")] = None

    @property
    def config(self) -> PatchConfig:
        """The options of a training run."""
        given: dict[str, Any] = {name: value for name, value in vars(self).items() if name not in ("steps", "runs")}
        return PatchConfig(**given)


def prepare(options: Options) -> tuple[Source, Path]:
    """Validates everything before it creates the folder."""
    if importlib.util.find_spec("torch") is None:
        raise ImportError("comparing needs PyTorch: pip install -e '.[torch]'")
    check(options.config)
    if options.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {options.steps}")
    least = 1 if options.dtype == "float32" else 0
    if options.runs < least:
        raise ValueError(f"--runs must be at least {least} with --dtype {options.dtype}, got {options.runs}")
    folder = check_run_dir(options.config)
    if options.run_dir is None:
        folder = folder.with_name(f"{folder.name}-compare")
    with looking(Console()) as progress:
        source = open_source(options.data, progress)
    most = Layout(options.batch_size).most
    if not source.resident or source.size > most:
        limit = f"at most {int(min(RESIDENT_BYTES, most)) >> 20} MiB of images, all of which stay in memory"
        raise ValueError(f"--data must have {limit}, got {options.data} with {len(source.records)} images")
    check_batch_size(options.batch_size, source.train)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--run-dir must be a writable folder, got {folder}: {error}") from error
    return source, folder


class Trajectory(NamedTuple):
    """The steps of a training run."""

    losses: np.ndarray  # (steps,), of each batch before its step
    seconds: np.ndarray  # (steps,)
    state_dict: dict[str, np.ndarray]  # the network at the end, under PyTorch's names


@contextmanager
def settings(dtype: str) -> Iterator[None]:
    """JAX's settings for a comparison in ``dtype``."""
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision(PRECISION):
        yield


def start(options: Options, source: Source) -> tuple[Run, PatchNetwork]:
    """Our run, and its network before the first step; to be used within `settings`."""
    with jax.enable_x64(False):  # the weights of a training run, also where they are then float64
        built = build_network(options.config, *source.shape)
    network: Any = cast(built, options.dtype)
    network.train()
    return Run(options.config, source, total_steps=options.steps, network=network), network


def train_ours(run: Run, steps: int, progress: Progress) -> Trajectory:
    """Trains our network, for so many steps."""
    taken, began = [], time.perf_counter()
    for _, scores in _steps(run.train_epoch, steps):
        jax.block_until_ready(run.state.params)  # they may be on their way
        taken.append((float(scores.error), time.perf_counter() - began))
        progress()
        began = time.perf_counter()
    losses, seconds = np.transpose(taken)
    return Trajectory(losses, seconds, to_torch(network_of(run.state)))


def train_twin(twin: "Twin", steps: int, progress: Progress) -> Trajectory:
    """Trains the twin."""
    taken = []
    with twin.order.kernels():
        for loss, _, _ in _steps(twin.train_epoch, steps):
            taken.append((loss, twin.seconds))
            progress()
    losses, seconds = np.transpose(taken)
    return Trajectory(losses, seconds, {name: tensor.numpy() for name, tensor in twin.network.state_dict().items()})


def _steps(train_epoch: Callable[[int], Iterator[Any]], steps: int) -> Iterator[Any]:
    return itertools.islice((step for epoch in itertools.count() for step in train_epoch(epoch)), steps)


def run(options: Options, source: Source, folder: Path) -> int:
    """Trains both, shows and writes the results; returns 1 where the two do not agree."""
    from .twin import Order, OurMasks, Twin  # PyTorch

    console = Console()
    say(console, heading(options))
    with settings(options.dtype), Bar((2 + options.runs) * options.steps, console) as bar:
        ours, network = start(options, source)
        trajectories = [train_ours(ours, options.steps, lambda: bar.count("ours"))]
        bar.note(f"ours: {options.steps} steps done")
        for number in range(1 + options.runs):
            name = f"PyTorch, order {number}" if number else "PyTorch"
            twin = Twin(ours, network, Order(number, options.seed), OurMasks(network))
            trajectories.append(train_twin(twin, options.steps, partial(bar.count, name)))
            bar.note(f"{name}: {options.steps} steps done")
        found = result(options, network, trajectories)
    write_whole(folder / JSON, json.dumps(_plain(found), indent=1, allow_nan=False) + "\n")
    save_picture(folder / PICTURE, f"{title(options)}, {options.steps} steps on {data_title(options.data)}", found)
    say(console, table(options, found))
    for line in (*findings(found), f"run folder: {printable(folder)}"):
        say(console, line)
    if found["verdict"]["holds"]:
        return 0
    print(f"error: ours and PyTorch's {options.network} do not agree in {options.dtype}", file=sys.stderr)
    return 1


def result(options: Options, network: PatchNetwork, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """All numbers of a comparison by name; ``trajectories`` are ours, PyTorch's reference and its other runs."""
    import torch

    from torch_ref.cases import CASES

    ours, reference = trajectories[:2]
    devices = Layout(options.batch_size).devices
    learned, block = parameter_paths(network), type(network.attn1).__name__
    endings = tuple(ending for case in CASES if case.class_name == block for ending in case.zero_gradients)
    groups: dict[str, dict[str, float]] = {"parameters": {}, "parameters_with_zero_gradient": {}, "buffers": {}}
    for name, expected in reference.state_dict.items():
        if not name.endswith("num_batches_tracked"):  # JAX's side has none
            trained = "parameters_with_zero_gradient" if name.endswith(endings) else "parameters"
            group = groups[trained if name in learned else "buffers"]
            group[name] = relative_error(ours.state_dict[name], expected)
    return {
        "options": dataclasses.asdict(options),
        "where": {
            "ours": f"{devices} x {jax.devices()[0].device_kind}, products at {PRECISION!r} precision",
            "PyTorch": f"cpu, {torch.get_num_threads()} threads",
            "versions": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
        },
        **judge(options.dtype, jax.default_backend(), *(one.losses for one in trajectories)),
        "seconds": {
            side: {"median": float(np.median(seconds[seconds.size > 1 :])), "steps": seconds}  # the first step compiles
            for side, seconds in (("ours", ours.seconds), ("pytorch", reference.seconds))
        },
        **groups,
    }


def _plain(value: Any) -> Any:
    """Values for JSON: lists in place of arrays, null in place of infinity and NaN."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | list):
        return [_plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def heading(options: Options) -> str:
    """What is about to happen, in a line."""
    runs = "ours and PyTorch"
    if options.runs:
        runs = f"ours, PyTorch, and PyTorch in {options.runs} other order{'s' * (options.runs > 1)} of sums"
    return f"{options.network} in {options.dtype}: {options.steps} steps of batches of {options.batch_size}, {runs}"


def title(options: Options) -> str:
    """Of the table and the picture."""
    return f"{options.network} in {options.dtype}: ours against PyTorch"


def table(options: Options, found: dict[str, Any]) -> Table:
    """The figures for the terminal."""
    loss, where, times = found["loss"], found["where"], found["seconds"]
    milliseconds = [f"{1e3 * times[side]['median']:.3g} ms" for side in ("ours", "pytorch")]
    rows = {
        f"losses, first {min(FIRST, options.steps)} steps": f"{np.max(loss['difference'][:FIRST]):.2g}",
        f"losses, all {options.steps} steps": f"{np.max(loss['difference']):.2g}",
        "parameters after them": largest(found["parameters"]),
        "those of zero gradient": largest(found["parameters_with_zero_gradient"]),
        "buffers": largest(found["buffers"]),
        "last loss": f"ours {loss['ours'][-1]:.9g}, PyTorch {loss['pytorch'][-1]:.9g}",
        "time per step": f"ours {milliseconds[0]}, PyTorch {milliseconds[1]} (medians, without compilation)",
        "ours on": where["ours"],
        "PyTorch on": where["PyTorch"],
        "versions": where["versions"],
    }
    shown = Table(title=title(options), show_header=False)
    for name, value in rows.items():
        if value:
            shown.add_row(name, value)
    return shown


def largest(errors: dict[str, float]) -> str:
    """The largest difference and its parameter; nothing where there are none."""
    if not errors:
        return ""
    name = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    return f"{errors[name]:.2g} ({name})"


def main(argv: Sequence[str], run: Callable[[Options, Source, Path], int] = run) -> int:
    """Runs the command and returns its exit status.

    0; 1 where the two do not agree, memory runs out or the results cannot be written; 2 for bad input; 130 after
    Ctrl-C.
    """
    try:
        options = read_options(Options, PROGRAM, argv)
        source, folder = prepare(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped before the first step", file=sys.stderr)
        return INTERRUPTED
    try:
        return run(options, source, folder)
    except OSError as error:
        print(f"error: cannot write to {folder}: {error}", file=sys.stderr)
    except EXHAUSTED as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped before the end: no results", file=sys.stderr)
        return INTERRUPTED
    return 1
