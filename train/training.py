"""``python -m train`` without a command: from the options to a complete run folder."""

import contextlib
import dataclasses
import importlib.util
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

import flax_attn

from .checkpoints import Checkpoints
from .config import PRESETS, Config, check, told_default
from .hosts import Processes, check_same, check_shared, in_first, is_first, join, largest, together
from .look import finish
from .loop import NonFiniteError, Run, StoppedError, fit
from .plots import save_curves
from .runs import CONFIG, RunFolder, check_run_dir, differences, machine, read_config
from .show import Bar, say
from .signals import Stop
from .tasks import task_of
from .text import EXHAUSTED, first_line, printable

PROGRAM = "python -m train"


def main(words: Sequence[str], kind: type[Run] = Run) -> int:
    """Trains a run of this kind, and returns the exit status.

    0; 1 for a non-finite loss, a record that cannot be read, a full disk or memory; 2 for bad input; 128 and the
    signal's number where the run was stopped.
    """
    with contextlib.ExitStack() as stack:
        run, folder, checkpoints, notes = prepare(parse(words), stack, kind)
        stop = stack.enter_context(Stop())
        try:
            train(run, folder, checkpoints, notes, stop)
            largest(0)  # waits for all
        except StoppedError:
            lines = f"stopped after step {run.place.step}; {checkpoints.last_good()}"
            if kind is Run:
                lines += f"\nto continue: {PROGRAM} --resume {shlex.quote(str(folder.path))}"
            return fail(stop.status, lines) if is_first() else stop.status
        except (NonFiniteError, ValueError, OSError, *EXHAUSTED) as error:
            return fail(1, f"error: {first_line(error)}; {checkpoints.last_good()}")
    return 0


def fail(code: int, line: str) -> int:
    """Prints a line to stderr, unless that is a lost terminal, and returns ``code``."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
    return code


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Trains a small network: to tell whether an image holds a white patch, or the class of arrays or sensor windows.

    Each --task has options of its own: see --help with --task. Other commands, each with a --help: attend draws what a
    trained network attends to, compare checks the training against PyTorch's, report trains all networks and writes a
    page of results.

    Attributes:
        config: The options of the run.
        resume: Continues the run in this folder with its own options; on as many devices of the same kind, with the
            same versions, the result is the same to the bit as if it had not been stopped.
    """

    config: Annotated[tyro.conf.OmitArgPrefixes[Config], tyro.conf.arg(name="")]
    resume: Annotated[str | None, told_default("a new run", "DIR")] = None
    processes: tyro.conf.OmitArgPrefixes[Processes] = dataclasses.field(default_factory=Processes)


def parse(argv: Sequence[str]) -> Arguments:
    """Reads the options of a training run; ``--preset`` and ``--task`` say what the others default to.

    With ``--resume`` they default to those of that run, from which only `Config.FREE` may differ.
    """
    read = partial(tyro.cli, Arguments, prog=PROGRAM, args=argv)
    # First the options that all tasks have; they decide about the others, and about the defaults.
    first, _ = read(default=Arguments(Config()), add_help=False, return_unknown_args=True)
    default = PRESETS[first.config.task][first.config.preset]
    if first.resume is not None:
        default = dataclasses.replace(read_config(Path(first.resume)), run_dir=first.resume)
    arguments: Arguments = read(default=Arguments(default))
    if first.resume is None:
        return arguments
    fixed = {name: value for name, value in vars(arguments.config).items() if name not in Config.FREE}
    if differing := differences(vars(default), fixed):
        raise ValueError(f"--resume {first.resume} holds a run with another configuration: {differing}")
    return arguments


def prepare(
    arguments: Arguments, stack: contextlib.ExitStack, kind: type[Run] = Run
) -> tuple[Run, RunFolder, Checkpoints, Sequence[str]]:
    """Validates everything before it creates the run folder, or with ``--resume`` opens it; ``stack`` closes it all.

    Returns the run at its beginning, or where it resumes, and notes for the user.
    """
    config = arguments.config
    check(config)
    if config.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise ValueError("--tensorboard needs tensorboardX, got none; install it with: pip install -e '.[tensorboard]'")
    join(arguments.processes)
    check_same("the options of a run", {**vars(config), "resume": arguments.resume})
    check_same("versions and settings", machine(config))
    path = Path(arguments.resume or in_first(lambda: check_run_dir(config)))
    folder = stack.enter_context(contextlib.closing(RunFolder(path)))
    notes = []
    if arguments.resume is not None:
        in_first(folder.hold)
        check_shared(path)
        notes = together(lambda: folder.check_machine(config))
    run = together(lambda: kind(config, task_of(config).open(config.data)))
    stack.enter_context(contextlib.closing(run))
    check_same("the data", run.source.identity)
    checkpoints = Checkpoints(path / "checkpoints", config.keep)
    if arguments.resume is None:
        check_shared(path)
        in_first(lambda: folder.begin(config, run.source))
        return run, folder, checkpoints, run.source.notes
    together(lambda: folder.check_data(run.source))
    step, where = in_first(checkpoints.newest), "there is no checkpoint yet: starting over"
    if step != "None":
        run.state, run.place = checkpoints.restore(int(step), run.state)
        where = f"continuing after step {step}"
    in_first(lambda: folder.go_back_to(run.place.epochs, run.place.step))
    in_first(lambda: folder.write_json(CONFIG, vars(config)))
    return run, folder, checkpoints, [*run.source.notes, where, *notes]


def train(run: Run, folder: RunFolder, checkpoints: Checkpoints, notes: Sequence[str], stop: Stop) -> None:
    """Trains, then fills the folder; after a stop in between a resume does the rest."""
    console, config, source, path = Console(quiet=not is_first()), run.config, run.source, folder.path
    parameters = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    data = f"{len(source.train)} training and {len(source.test)} test {source.described}"
    devices = f"batches of {config.batch_size} on {run.layout.devices} x {jax.devices()[0].device_kind}"
    for line in (f"{config.title}, {parameters:,} parameters; {data}; {devices}", *notes):
        say(console, line)
    with contextlib.ExitStack() as stack:
        events = None
        if config.tensorboard and is_first():
            from .events import Events  # tensorboardX

            events = stack.enter_context(contextlib.closing(Events(folder, run.steps)))
        tests = -(-len(source.test) // config.batch_size)
        done = run.place.step + run.place.epochs * tests
        with Bar(config.epochs * (run.steps + tests), console, done) as bar:
            fit(run, folder, checkpoints, bar, stop, events)
        if stop.heed():  # a finished run, whose folder is being filled
            raise StoppedError
        network = run.network
        if not is_first():
            return
        flax_attn.to_torch(network, path / "model.safetensors")
        save_curves(path / "curves.png", config, folder.history(), folder.step_errors())
        scores = finish(path, config, run.task, network, source)
    for line in (*scores, f"run folder: {printable(path)}"):
        say(console, line)
