"""``python -m train`` without a command: from the options to a full run folder."""

import contextlib
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from .checkpoints import Checkpoints
from .cli import FREE, PROGRAM, Arguments, parse
from .config import Config, check
from .data import Source
from .data.stream import DataError
from .events import NoEvents, import_library, open_events
from .look import finish
from .loop import NonFiniteError, Run, StoppedError
from .machine import compare_machine, write_machine
from .metrics import Tally
from .plots import save_curves
from .resume import resume
from .runs import RunFolder, check_run_dir, read_config
from .show import ProgressBar, heading, looking, summary
from .signals import INTERRUPTED, Stop, status
from .step import network_of
from .tasks import task_of
from .text import EXHAUSTED, first_line


def main(words: Sequence[str]) -> int:
    """Trains, and returns the exit status.

    0; 1 for a loss that is no number, a record that breaks, a full disk or memory; 2 for bad input; 128 and the
    signal's number where the run was told to stop.
    """
    began = time.perf_counter()
    try:
        arguments = parse(words)
        run, folder, notes = prepare(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except EXHAUSTED as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped before the first step", file=sys.stderr)
        return INTERRUPTED
    with Stop() as stop:
        run.stop = lambda: stop.signal is not None
        try:
            train(run, folder, notes, began)
        except StoppedError:
            print(f"stopped after step {run.place.step}; of the checkpoints {run.last_good()}", file=sys.stderr)
            print(f"to go on: {PROGRAM} --resume {shlex.quote(str(folder.path))}", file=sys.stderr)
            return status(stop.signal or 0)
        except (NonFiniteError, DataError, OSError, *EXHAUSTED) as error:
            run.close()  # after a save that is under way
            what = f"one of the {run.source.unit} cannot be read: " if isinstance(error, DataError) else ""
            print(f"error: {what}{first_line(error)}; of the checkpoints {run.last_good()}", file=sys.stderr)
            return 1
        finally:
            run.close()
            folder.close()
    return 0


def prepare(arguments: Arguments) -> tuple[Run, RunFolder, list[str]]:
    """Does all that bad input can stop, and makes the folder last, or opens that of the run that goes on.

    Returns:
        The run, its folder, and lines for its reader.

    Raises:
        ValueError: an option or a file that cannot be used.
        FileNotFoundError: no such file.
    """
    config = arguments.config
    check(config)
    if config.tensorboard:
        import_library()
    if arguments.resume is not None:
        return go_on(arguments, RunFolder(Path(arguments.resume)))
    check_run_dir(config)
    run = Run(config, open_data(config))
    with contextlib.ExitStack() as undo:
        undo.callback(run.close)
        folder = RunFolder.create(config, run.source)
        undo.callback(folder.close)
        write_machine(folder.path, run.devices)
        run.checkpoints = Checkpoints(folder.checkpoints, config.keep)
        undo.pop_all()
    return run, folder, [*run.source.notes]


def open_data(config: Config) -> Source:
    """The data of a task, with a bar while a folder is looked through."""
    with looking(Console()) as progress:
        source: Source = task_of(config).open(config.data, progress)
        return source


def go_on(arguments: Arguments, folder: RunFolder) -> tuple[Run, RunFolder, list[str]]:
    """What `prepare` does with ``--resume``; the folder is held from the beginning, and let go of where it fails."""
    with contextlib.ExitStack() as undo:
        undo.callback(folder.close)
        folder.hold()
        run = Run(arguments.config, open_data(arguments.config))
        undo.callback(run.close)
        elsewhere = compare_machine(folder.path, run.devices)
        notes = resume(run, folder, older=arguments.resume_older)
        changed = {name: getattr(run.config, name) for name in FREE}  # for the next time
        folder.write_config(dataclasses.replace(read_config(folder.path), **changed))
        undo.pop_all()
    return run, folder, [*run.source.notes, *notes, *elsewhere]


def train(run: Run, folder: RunFolder, notes: Sequence[str], began: float) -> None:
    """Trains and fills the folder; a stop that is asked for meanwhile leaves the rest to a resume."""
    console = Console()
    for line in (heading(run), *notes):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    with contextlib.closing(open_events(run, folder)) as events:
        train_epochs(run, folder, events, console)
        run.leave_if_asked()
        run.save_weights(folder.path / "model.safetensors")
        save_curves(folder.path / "curves.png", run.config, folder.history(), folder.step_errors())
        run.leave_if_asked()
        found = finish(folder.path, run.config, run.task, network_of(run.state), run.source)
        run.leave_if_asked()
        events.pictures()
    console.print(summary(folder.history(), folder, time.perf_counter() - began, run.source.unit))
    for line in found:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def train_epochs(run: Run, folder: RunFolder, events: NoEvents, console: Console) -> None:
    """Trains, shows it and writes it down."""
    with ProgressBar(run, console) as bar:
        run.warn, run.before_save = bar.note, folder.sync

        def batch(split: str, tally: Tally, error: float) -> None:
            if split == "train":
                folder.add_step(run.place.step, error)
                events.step(run.place.step, error)
            bar.batch(split, tally)

        for metrics in run.epochs(batch):
            folder.add_epoch(metrics)
            events.epoch(metrics)
            bar.epoch(metrics)
