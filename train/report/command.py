"""The command: trains the runs that are missing, one after the other, and writes the tables."""

import gc
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import jax
from rich.console import Console
from rich.rule import Rule

from torch_ref.report.run import cpu_name, hardware

from ..config import flag, read_options
from ..data import Source
from ..data.feed import DataError, check_batch_size
from ..loop import NonFiniteError, StoppedError
from ..runs import CONFIG, RunFolder
from ..show import epoch_line, say
from ..signals import INTERRUPTED, Stop, status
from ..text import first_line
from ..training import main as train
from ..training import open_data
from .outcomes import Known, collect, is_done, log_attempt, read_known, read_log, read_report
from .page import NUMBERS, write_docs, write_report
from .plan import PROGRAM, Options, Planned, Side, check_same, plan, words

DOCS = Path(__file__).parents[2] / "docs"
STOPPED = "stopped; the same command continues"

# Starts a run, or continues it, and returns the exit status.
Trainer = Callable[[Planned, Source, Console], int]


def train_ours(run: Planned, source: Source, console: Console) -> int:
    """Trains one of our runs with ``python -m train``."""
    if (run.path / CONFIG).is_file():
        return train(["--resume", str(run.path), "--data", run.config.data])
    return train(words(run.config))


def train_twin(run: Planned, source: Source, console: Console) -> int:
    """Trains a PyTorch twin."""
    from .. import twin  # PyTorch

    with Stop() as stop:
        try:
            for metrics in twin.train(run.config, source, stop):
                say(console, f"PyTorch, {epoch_line(metrics, run.config.epochs, source.unit)}")
        except StoppedError:
            return status(stop.signal or 0)
        except (NonFiniteError, DataError, OSError, ValueError, RuntimeError, MemoryError) as error:
            say(console, f"error: {first_line(error)}")
            return 1
    return 0


TRAINERS: dict[Side, Trainer] = {"ours": train_ours, "pytorch": train_twin}


def main(argv: Sequence[str], trainers: dict[Side, Trainer] = TRAINERS, docs: Path = DOCS) -> int:
    """Runs the command and returns its exit status.

    0; 1 where a run failed or the results cannot be written; 2 for bad input; 128 and the signal's number where it was
    stopped.
    """
    try:
        return run(read_options(Options, PROGRAM, argv), trainers, docs)
    except (ValueError, ImportError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return INTERRUPTED


def run(options: Options, trainers: dict[Side, Trainer], docs: Path) -> int:
    """Trains what is missing, and writes the results; with ``--renew`` only writes those that are kept."""
    if options.renew:
        others = [flag(name) for name, value in vars(Options(renew=True)).items() if getattr(options, name) != value]
        if others:
            raise ValueError(f"--renew must be the only option, as it reads no runs, got {', '.join(others)} too")
        return tell(write_docs(read_report(docs / NUMBERS), docs))
    runs, known = plan(options), read_known(options)
    for each in runs:
        check_same(each)
    if options.train:
        missing = [each for each in runs if each.key not in known.outcomes]
        code = work(missing, prepare(runs, missing, known), Path(options.runs), trainers)
        if code:
            print(STOPPED, file=sys.stderr)
            return code
    report = collect(options, runs, known)
    tell(write_docs(report, docs) if options.docs else write_report(report, Path(options.out)))
    if report.failed:
        print(f"error: these runs failed, for the reasons above: {', '.join(report.failed)}", file=sys.stderr)
        return 1
    return 0


def tell(paths: Sequence[Path]) -> int:
    """Says what was written, and returns 0."""
    for path in paths:
        say(Console(), f"written: {path}")
    return 0


def prepare(runs: Sequence[Planned], missing: Sequence[Planned], known: Known) -> Source:
    """Opens the images, and validates everything before the first run."""
    if any(each.key.side == "pytorch" for each in missing) and importlib.util.find_spec("torch") is None:
        raise ImportError("twins need PyTorch: pip install -e '.[torch]'; --twins without a protocol trains none")
    source = open_data(runs[0].config)
    known.check_images(source.identity)
    for each in runs:
        check_batch_size(each.config.batch_size, source.train)
        if (each.path / CONFIG).is_file():
            RunFolder(each.path).check_data(source)
    return source


def work(runs: Sequence[Planned], source: Source, folder: Path, trainers: dict[Side, Trainer]) -> int:
    """Trains the runs that are not finished; returns the exit status of the signal that stopped it, or 0."""
    console, attempts = Console(), read_log(folder)
    with Stop() as stop:  # also catches a signal that came too late for a run
        for number, run in enumerate(runs, start=1):
            if is_done(run, attempts):
                continue
            say(console, Rule(f"{number} of {len(runs)}: {run.name}"))
            began = time.perf_counter()
            code = trainers[run.key.side](run, source, console)
            attempt = {"run": run.name, "status": code, "seconds": time.perf_counter() - began}
            log_attempt(folder, attempt | {"where": where(run.key.side)})
            if stop.signal is not None:
                return status(stop.signal)
            jax.clear_caches()  # the next network shares no program with this one
            gc.collect()
    return 0


def where(side: Side) -> str:
    """The device and the versions of one side."""
    if side == "ours":
        return f"{hardware()}; {', '.join(f'{name} {version(name)}' for name in ('jax', 'flax', 'optax'))}"
    import torch

    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"{cpu_name()}, {torch.get_num_threads()} threads"
    return f"{device}; torch {version('torch')}"
