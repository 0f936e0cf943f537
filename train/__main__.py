"""``python -m train``: trains a network on the patch task and leaves a run folder. See ``--help``."""

import os
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from .cli import parse
from .config import Config, check
from .data import open_source
from .devices import use_all_cores
from .look import command as attend
from .look import finish
from .loop import NonFiniteError, Run
from .plots import save_curves
from .run_folder import RunFolder, check_run_dir
from .show import ProgressBar, heading, summary
from .state import network_of

INTERRUPTED = 130  # what shells give a command that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 1 for a loss that is no number, 2 for bad input, 130: Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] == "attend":
        return attend.main(argv[1:])
    config = parse(argv)
    use_all_cores()
    began = time.perf_counter()
    try:
        run, folder = prepare(config)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped before the first step", file=sys.stderr)
        return INTERRUPTED
    try:
        train(run, folder, began)
    except NonFiniteError as error:
        print(f"error: {error}; what there is stands in {folder.path}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; what there is stands in {folder.path}", file=sys.stderr)
        return INTERRUPTED
    return 0


def prepare(config: Config) -> tuple[Run, RunFolder]:
    """Does all that bad input can stop, and makes the folder last.

    Raises:
        ValueError: an option or a file that cannot be used.
        FileNotFoundError: no such file.
    """
    check(config)
    check_run_dir(config)
    run = Run(config, open_source(config.data))
    return run, RunFolder(config)


def train(run: Run, folder: RunFolder, began: float) -> None:
    """Trains and fills the folder."""
    console = Console()
    console.print(heading(run), soft_wrap=True, highlight=False)
    history = []
    with ProgressBar(run, console) as bar:
        for metrics in run.epochs(bar.batch):
            folder.add(metrics)
            history.append(metrics)
            bar.epoch(metrics)
    run.save(folder.path / "model.safetensors")
    save_curves(folder.path / "curves.png", run.config, history, run.step_errors)
    found = finish(folder.path, run.config, network_of(run.state), run.source)
    console.print(summary(history, folder, time.perf_counter() - began))
    console.print(found, soft_wrap=True, highlight=False)


def run_and_leave() -> None:
    """Ends the process with `main`'s status."""
    status = main()
    if status == INTERRUPTED:
        # XLA's threads may be in the middle of a step or a compilation; a normal exit would pull memory away from them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run_and_leave()
