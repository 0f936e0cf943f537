"""The command: trains the runs that are missing, one after the other, and writes the tables after each."""

import gc
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import jax
from rich.console import Console
from rich.rule import Rule

from torch_ref.report.run import cpu_name, hardware

from ..config import read_options
from ..data import Source
from ..data.feed import check_batch_size
from ..look import SCORES
from ..runs import CONFIG, RunFolder
from ..show import say
from ..signals import Stop, status
from ..training import main as train
from ..training import open_data, parse
from .outcomes import Report, begin, outcome_of, read_report
from .page import NUMBERS, write_report
from .plan import PROGRAM, Options, Planned, Side, plan


def to_resume(run: Planned) -> list[str]:
    """The arguments that continue a run, none where it has not begun."""
    return ["--resume", str(run.path)] if (run.path / CONFIG).is_file() else []


def train_ours(run: Planned) -> int:
    """Trains one of our runs with ``python -m train``, and returns the exit status."""
    return train([*to_resume(run), *run.words])


def train_twin(run: Planned) -> int:
    """Trains a PyTorch twin, and returns the exit status."""
    from ..twin import Twin  # PyTorch

    return train([*to_resume(run), *run.words], Twin)


def main(argv: Sequence[str]) -> int:
    """Trains what is missing and adds it to the results; with ``--no-train`` only makes their tables anew.

    Returns the exit status: 1 where a run failed, 128 and the signal's number where it was stopped.
    """
    options = read_options(Options, PROGRAM, argv)
    console, out = Console(), Path(options.out)
    if options.train:
        runs = plan(options)
        source = open_data(runs[0].config)
        report = begin(options, runs, source, out / NUMBERS)
        kept = {outcome.key for outcome in report.outcomes}
        missing = [each for each in runs if each.key not in kept]
        prepare(missing, source)
        if code := work(missing, report, out, console):
            print("stopped; the same command continues", file=sys.stderr)
            return code
    else:
        report = read_report(out / NUMBERS)
    for path in write_report(report, out) if report.outcomes else []:
        say(console, f"written: {path}")
    if report.failed:
        print(f"error: these runs failed: {', '.join(report.failed)}", file=sys.stderr)
    return int(bool(report.failed))


def prepare(missing: Sequence[Planned], source: Source) -> None:
    """Validates everything before the first run."""
    if any(each.key.side == "pytorch" for each in missing):
        from .. import twin  # noqa: F401  # PyTorch
    for each in missing:
        check_batch_size(each.config.batch_size, source.train)
        if resumed := to_resume(each):
            parse([*resumed, *each.words])
            RunFolder(each.path).check_data(source)


def work(missing: Sequence[Planned], report: Report, out: Path, console: Console) -> int:
    """Trains the runs, adding each to the report; returns the exit status of the signal that stopped it, or 0."""
    with Stop() as stop:  # also catches a signal that came too late for a run
        for number, each in enumerate(missing, start=1):
            say(console, Rule(f"{number} of {len(missing)}: {each.key.name}"))
            code = 0
            if not (each.path / SCORES).is_file():  # else only its results are missing
                code = train_ours(each) if each.key.side == "ours" else train_twin(each)
            if code == 0:
                report.outcomes.append(outcome_of(each, where(each.key.side)))
                write_report(report, out)
            if stop.signal is not None:
                return status(stop.signal)
            if code:
                report.failed.append(each.key.name)
            jax.clear_caches()  # the next network shares no program with this one
            gc.collect()
    return 0


def where(side: Side) -> str:
    """The device and the versions of one side."""
    if side == "ours":
        return f"{hardware()}; {', '.join(f'{name} {version(name)}' for name in ('jax', 'flax', 'optax'))}"
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    return f"{device}; torch {version('torch')}"
