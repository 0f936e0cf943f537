"""``python -m train`` without a command: from the options to a complete run folder."""

import contextlib
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import flax_attn

from .checkpoints import Checkpoints
from .config import Config, check
from .data import Source
from .data.feed import DataError
from .events import Events, import_library
from .look import finish
from .loop import NonFiniteError, Run, StoppedError, Training, leave_if_asked
from .plots import save_curves
from .runs import CONFIG, MACHINE, RunFolder, check_run_dir, compare_machine, machine, read_config
from .show import Bar, looking, say, summary
from .signals import INTERRUPTED, Stop, status
from .step import network_of
from .tasks import task_of
from .text import EXHAUSTED, first_line
from .usage import PROGRAM, Arguments, parse


def main(words: Sequence[str]) -> int:
    """Trains, and returns the exit status.

    0; 1 for a non-finite loss, a record that cannot be read, a full disk or memory; 2 for bad input; 128 and the
    signal's number where the run was stopped.
    """
    began = time.perf_counter()
    try:
        arguments = parse(words)
        prepared = prepare(arguments)
    except (ValueError, OSError) as error:
        return fail(2, f"error: {error}")
    except EXHAUSTED as error:
        return fail(1, f"error: {first_line(error)}")
    except KeyboardInterrupt:
        return fail(INTERRUPTED, "stopped before the first step")
    run, folder, checkpoints, _ = prepared
    with contextlib.closing(folder), contextlib.closing(run), Stop() as stop:
        try:
            train(prepared, stop, began)
        except StoppedError:
            fail(0, f"stopped after step {run.place.step}; {checkpoints.last_good()}")
            return fail(status(stop.signal or 0), f"to continue: {PROGRAM} --resume {shlex.quote(str(folder.path))}")
        except (NonFiniteError, DataError, OSError, *EXHAUSTED) as error:
            what = f"one of the {run.source.unit} cannot be read: " if isinstance(error, DataError) else ""
            return fail(1, f"error: {what}{first_line(error)}; {checkpoints.last_good()}")
    return 0


def fail(code: int, line: str) -> int:
    """Prints a line to stderr, unless that is a lost terminal, and returns ``code``."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)
    return code


class Prepared(NamedTuple):
    """A run at its beginning, or where it resumes, and notes for the user."""

    run: Run
    folder: RunFolder
    checkpoints: Checkpoints
    notes: list[str]


def prepare(arguments: Arguments[Any]) -> Prepared:
    """Validates everything before it creates the run folder; with ``--resume`` opens that of the run.

    Raises:
        ValueError: an option or a file that cannot be used.
        OSError: no such file, say.
    """
    config: Config = arguments.config
    check(config)
    if config.tensorboard:
        import_library()
    with contextlib.ExitStack() as undo:
        if arguments.resume is None:
            check_run_dir(config)
            run = undo.enter_context(contextlib.closing(Run(config, open_data(config))))
            folder = undo.enter_context(contextlib.closing(RunFolder.create(config, run.source)))
            checkpoints, notes = Checkpoints(folder.checkpoints, config.keep), []
            folder.write_json(MACHINE, machine(run.layout.devices))
        else:
            folder = undo.enter_context(contextlib.closing(RunFolder(Path(arguments.resume))))
            folder.hold()
            run = undo.enter_context(contextlib.closing(Run(config, open_data(config))))
            checkpoints = Checkpoints(folder.checkpoints, config.keep)
            notes = resume(run, folder, checkpoints, older=arguments.resume_older)
        undo.pop_all()
    return Prepared(run, folder, checkpoints, [*run.source.notes, *notes])


def open_data(config: Config) -> Source:
    """The data of a task, with a bar while a folder of files is read."""
    with looking(Console()) as progress:
        source: Source = task_of(config).open(config.data, progress)
        return source


def resume(run: Run, folder: RunFolder, checkpoints: Checkpoints, *, older: bool) -> list[str]:
    """Takes a run and its folder back to the newest checkpoint, and returns notes for the user."""
    folder.check_data(run.source)
    elsewhere = compare_machine(folder.path, run.layout.devices)
    step, notes = checkpoints.choose(older=older)
    where = "there is no checkpoint yet: starting over"
    if step is not None:
        run.state, run.place = checkpoints.restore(step, run.state)
        where = f"continuing after step {step}"
        if run.place.epochs == run.config.epochs:
            where += ", the last one: only the files that follow it are written again"
    folder.go_back_to(run.place.epochs, run.place.step)
    changed = {name: getattr(run.config, name) for name in Config.FREE}
    folder.write_json(CONFIG, vars(dataclasses.replace(read_config(folder.path), **changed)))
    return [*notes, where, *elsewhere]


def train(prepared: Prepared, stop: Stop, began: float) -> None:
    """Trains, then fills the folder; after a stop in between a resume does the rest."""
    run, folder, checkpoints, notes = prepared
    console, config, path = Console(), run.config, folder.path
    for line in (heading(run), *notes):
        say(console, line)
    with contextlib.ExitStack() as stack:
        events = None
        if config.tensorboard:
            rates = np.asarray(jax.vmap(run.rate)(jnp.arange(config.epochs * run.steps)))
            events = stack.enter_context(contextlib.closing(Events(folder, rates, run.steps)))
        tests = -(-len(run.source.test) // config.batch_size)
        done = run.place.step + run.place.epochs * tests
        with Bar(config.epochs * (run.steps + tests), console, done) as bar:
            Training(run, folder, checkpoints, events, bar, stop).fit()
        leave_if_asked(stop)
        flax_attn.to_torch(network_of(run.state), path / "model.safetensors")
        save_curves(path / "curves.png", config, folder.history(), folder.step_errors())
        leave_if_asked(stop)
        scores = finish(path, run.config, run.task, network_of(run.state), run.source)
        leave_if_asked(stop)
        if events is not None:
            events.add_pictures()
    say(console, summary(folder.history(), path, time.perf_counter() - began, run.source.unit))
    for line in scores:
        say(console, line)


def heading(run: Run) -> str:
    """What is about to be trained, in a line."""
    source, config = run.source, run.config
    parameters = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    return (
        f"{config.title}, {parameters:,} parameters; {len(source.train)} training and {len(source.test)} test "
        f"{source.described}; batches of {config.batch_size} on {run.layout.devices} x {jax.devices()[0].device_kind}"
    )
