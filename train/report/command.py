"""The command: parse, train what is missing, write the page."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..data import open_source
from .options import Options, parse
from .plan import Planned, check, check_same, plan
from .work import Log, Train, work

INTERRUPTED = 130  # what shells give a command that Ctrl-C ended


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    0; 1 where a run failed or the page cannot be written; 2 for bad input; 128 and the signal's number where it was
    told to stop.
    """
    from ..__main__ import main as train

    try:
        options = parse(argv)
        runs = prepare(options)
        return run(options, runs, train)
    except (ValueError, ImportError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return INTERRUPTED


def prepare(options: Options) -> list[Planned]:
    """Does all that bad input can stop before the first run.

    Raises:
        ValueError: an option that cannot be used, or a run folder with other options.
        ImportError: PyTorch is not installed.
    """
    check(options)
    if options.twins and options.train and importlib.util.find_spec("torch") is None:
        raise ImportError(
            "training the twins needs PyTorch: pip install 'flax_attn[torch]', or leave them out: --twins"
        )
    runs = plan(options)
    for each in runs:
        check_same(each)
    return runs


def run(options: Options, runs: list[Planned], train: Train) -> int:
    """Trains what is missing, and writes the page from what there is; returns the exit status.

    Raises:
        ValueError: images that cannot be used, or nothing to write of.
        OSError: something cannot be written.
    """
    from .outcomes import collect  # the page's parts, for which bad input need not wait
    from .write import write_docs, write_report

    console, log, failed = Console(), Log(Path(options.runs)), []
    if options.train:
        code, failed = work(runs, open_source(options.data), log, train, console)
        if code:
            print("stopped; the same command goes on", file=sys.stderr)
            return code
    report = collect(options, runs, log)
    for path in write_docs(report) if options.docs else write_report(Path(options.out), report):
        console.print(f"written: {path}", soft_wrap=True, highlight=False)
    if failed:
        print(f"error: these runs failed, for the reasons above: {', '.join(failed)}", file=sys.stderr)
        return 1
    return 0
