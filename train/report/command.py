"""The command: parse, train what is missing, write the page."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..data import Source
from ..data.batches import check_batch_size
from ..runs import CONFIG, RunFolder
from ..signals import INTERRUPTED
from ..training import main as train
from ..training import open_data
from .known import Known, read_known
from .options import Options, parse
from .plan import Planned, check, check_same, plan
from .work import Log, work


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status.

    0; 1 where a run failed or the page cannot be written; 2 for bad input; 128 and the signal's number where it was
    told to stop.
    """
    try:
        options = parse(argv)
        if options.renew:
            check_alone(options)
            return renew()
        return run(options, *prepare(options))
    except (ValueError, ImportError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return INTERRUPTED


def prepare(options: Options) -> tuple[list[Planned], Source | None, Known]:
    """Does all that bad input can stop before the first run.

    Returns:
        All runs of the report, the images if something is to be trained, and what other reports hold.

    Raises:
        ValueError: an option that cannot be used, or a run folder or a report with other options or images.
        ImportError: PyTorch is not installed.
        FileNotFoundError: no such images or report.
    """
    check(options)
    runs, known = plan(options), read_known(options)
    for each in runs:
        check_same(each)
    if not options.train:
        return runs, None, known
    twins = any(each.side == "pytorch" for each in missing(runs, known))
    if twins and importlib.util.find_spec("torch") is None:
        raise ImportError("twins are PyTorch's: pip install -e '.[torch]'; --twins with nothing after it trains none")
    source = open_data(runs[0].config)
    known.check_images(source.identity)
    for each in runs:
        check_batch_size(each.config.batch_size, source.train)
        if (each.path / CONFIG).is_file():
            RunFolder(each.path).check_data(source)
    return runs, source, known


def missing(runs: list[Planned], known: Known) -> list[Planned]:
    """The runs that no other report holds."""
    return [each for each in runs if each.key not in known.outcomes]


def run(options: Options, runs: list[Planned], source: Source | None, known: Known) -> int:
    """Trains what is missing, and writes the page from what there is; returns the exit status.

    Raises:
        ValueError: nothing to write of.
        OSError: something cannot be written.
    """
    from .collect import collect  # the page's parts, for which bad input need not wait
    from .write import write_docs, write_report

    console, log = Console(), Log(Path(options.runs))
    if source is not None:
        code = work(missing(runs, known), source, log, train, console)
        if code:
            print("stopped; the same command goes on", file=sys.stderr)
            return code
    report = collect(options, runs, log, known)
    for path in write_docs(report) if options.docs else write_report(Path(options.out), report):
        console.print(f"written: {path}", soft_wrap=True, highlight=False, markup=False)
    if report.failed:
        print(f"error: these runs failed, for the reasons above: {', '.join(report.failed)}", file=sys.stderr)
        return 1
    return 0


def check_alone(options: Options) -> None:
    """Raises ``ValueError`` where options are given beside ``--renew``, which has those of the kept report."""
    given = [name for name, default in vars(Options()).items() if getattr(options, name) != default]
    others = [f"--{name.replace('_', '-')}" for name in given if name != "renew"]
    if others:
        raise ValueError(
            f"--renew must be the only option, as it trains and reads no runs, got {', '.join(others)}, too"
        )


def renew() -> int:
    """Writes the pages in the documentation anew from the numbers that are kept beside them."""
    from . import write
    from .outcomes import from_json

    for path in write.write_docs(from_json((write.ROOT / "docs" / write.NUMBERS).read_text(encoding="utf-8"))):
        print(f"written: {path}")
    return 0
