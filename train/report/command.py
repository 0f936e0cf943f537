"""The command: trains the runs that are missing, one after the other, and writes the tables after each."""

import gc
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import jax
from rich.console import Console
from rich.rule import Rule

from torch_ref.report.run import cpu_name, hardware

from ..config import read_options
from ..data import Source
from ..data.feed import DataError, check_batch_size
from ..look import SCORES
from ..loop import NonFiniteError, StoppedError
from ..runs import CONFIG, RunFolder
from ..show import epoch_line, say
from ..signals import INTERRUPTED, Stop, status
from ..text import first_line
from ..training import main as train
from ..training import open_data, parse
from .outcomes import begin, outcome_of, read_report
from .page import NUMBERS, write_report
from .plan import PROGRAM, Options, Planned, Side, plan

# Starts a run, or continues it, and returns the exit status.
Trainer = Callable[[Planned, Source, Console], int]


def to_resume(run: Planned) -> list[str]:
    """The arguments that continue a run, none where it has not begun."""
    return ["--resume", str(run.path)] if (run.path / CONFIG).is_file() else []


def train_ours(run: Planned, source: Source, console: Console) -> int:
    """Trains one of our runs with ``python -m train``."""
    return train([*to_resume(run), *run.words])


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


def main(argv: Sequence[str], trainers: dict[Side, Trainer] = TRAINERS) -> int:
    """Runs the command and returns its exit status.

    0; 1 where a run failed or the results cannot be written; 2 for bad input; 128 and the signal's number where it was
    stopped.
    """
    try:
        return run(read_options(Options, PROGRAM, argv), trainers)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
    except ImportError:
        needed = "pip install -e '.[torch]'; --twins without a protocol trains none"
        print(f"error: twins need PyTorch: {needed}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 2


def run(options: Options, trainers: dict[Side, Trainer]) -> int:
    """Trains what is missing and adds it to the results; with ``--no-train`` only makes their tables anew."""
    console, out = Console(), Path(options.out)
    if not options.train:
        tell(write_report(read_report(out / NUMBERS), out), console)
        return 0
    runs = plan(options)
    source = open_data(runs[0].config)
    report = begin(options, runs, source, out / NUMBERS)
    kept = {outcome.key for outcome in report.outcomes}
    missing = [each for each in runs if each.key not in kept]
    prepare(missing, source)
    with Stop() as stop:  # also catches a signal that came too late for a run
        for number, each in enumerate(missing, start=1):
            say(console, Rule(f"{number} of {len(missing)}: {each.key.name}"))
            finished = (each.path / SCORES).is_file()
            code = 0 if finished else trainers[each.key.side](each, source, console)
            if code == 0:
                report.outcomes.append(outcome_of(each, where(each.key.side)))
                write_report(report, out)
            if stop.signal is not None:
                print("stopped; the same command continues", file=sys.stderr)
                return status(stop.signal)
            if code:
                report.failed.append(each.key.name)
            jax.clear_caches()  # the next network shares no program with this one
            gc.collect()
    if report.outcomes:
        tell(write_report(report, out), console)
    if report.failed:
        print(f"error: these runs failed, for the reasons above: {', '.join(report.failed)}", file=sys.stderr)
    return int(bool(report.failed))


def tell(paths: Sequence[Path], console: Console) -> None:
    """Says what was written."""
    for path in paths:
        say(console, f"written: {path}")


def prepare(missing: Sequence[Planned], source: Source) -> None:
    """Validates everything before the first run."""
    if any(each.key.side == "pytorch" for each in missing):
        from .. import twin  # noqa: F401  # PyTorch
    for each in missing:
        check_batch_size(each.config.batch_size, source.train)
        if resumed := to_resume(each):
            parse([*resumed, *each.words])
            RunFolder(each.path).check_data(source)


def where(side: Side) -> str:
    """The device and the versions of one side."""
    if side == "ours":
        return f"{hardware()}; {', '.join(f'{name} {version(name)}' for name in ('jax', 'flax', 'optax'))}"
    import torch

    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"{cpu_name()}, {torch.get_num_threads()} threads"
    return f"{device}; torch {version('torch')}"
