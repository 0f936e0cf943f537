"""``python -m train``: trains a network on a task and leaves a run folder. See ``--help``."""

import importlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from .checkpoint import Checkpoints
from .cli import PROGRAM, Arguments, parse
from .config import check
from .data.stream import DataError
from .devices import use_all_cores
from .loop import NonFiniteError, Run, StoppedError
from .metrics import Tally
from .plots import save_curves
from .resume import resume
from .run_folder import RunFolder, check_run_dir
from .show import ProgressBar, heading, summary
from .signals import Stop, status
from .state import network_of
from .tasks import task_of

INTERRUPTED = 130  # what shells give a command that Ctrl-C ended

# By the first word: what does something other than to train. Each is a module, loaded when it is asked for, whose
# ``main`` takes the words after the first and returns the exit status.
COMMANDS = {"attend": "train.look.command", "compare": "train.compare.command"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    0; 1 for a loss that is no number, an image that breaks or a full disk; 2 for bad input; 128 and the signal's number
    where the run was told to stop. The commands of `COMMANDS` say what theirs mean.
    """
    began = time.perf_counter()
    use_all_cores()
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        command: Callable[[Sequence[str]], int] = importlib.import_module(COMMANDS[words[0]]).main
        return command(words[1:])
    try:
        arguments = parse(words)
        run, folder, notes = prepare(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
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
        except (NonFiniteError, DataError, OSError) as error:
            run.close()  # after a save that is under way
            what = "an image cannot be read: " if isinstance(error, DataError) else ""
            print(f"error: {what}{error}; of the checkpoints {run.last_good()}", file=sys.stderr)
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
    if arguments.resume is None:
        check_run_dir(config)
    run = Run(config, task_of(config).open(config.data))
    if arguments.resume is not None:
        folder, notes = resume(run, Path(arguments.resume), older=arguments.resume_older)
        return run, folder, [*run.source.notes, *notes]
    folder = RunFolder.create(config, run.source)
    run.checkpoints = Checkpoints(folder.checkpoints, config.keep)
    return run, folder, [*run.source.notes]


def train(run: Run, folder: RunFolder, notes: Sequence[str], began: float) -> None:
    """Trains and fills the folder."""
    console = Console()
    for line in (heading(run), *notes):
        console.print(line, soft_wrap=True, highlight=False)
    with ProgressBar(run, console) as bar:
        run.warn = bar.note

        def batch(split: str, tally: Tally, error: float) -> None:
            if split == "train":
                folder.add_step(run.place.step, error)
            bar.batch(split, tally)

        for metrics in run.epochs(batch):
            folder.add_epoch(metrics)
            bar.epoch(metrics)
    run.save_weights(folder.path / "model.safetensors")
    save_curves(folder.path / "curves.png", run.config, folder.history(), folder.step_errors())
    found = run.task.finish(folder.path, run.config, network_of(run.state), run.source)
    console.print(summary(folder.history(), folder, time.perf_counter() - began, run.source.unit))
    for line in found:
        console.print(line, soft_wrap=True, highlight=False)


def run_and_leave() -> None:
    """Ends the process with `main`'s status."""
    code = main()
    if code > status(0):
        # XLA's threads may be in the middle of a step or a compilation; a normal exit would pull memory away from them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run_and_leave()
