"""The command: trains what is missing, and writes the tables."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..config import flag, read_options
from ..data import Source
from ..data.batches import check_batch_size
from ..runs import CONFIG, RunFolder
from ..show import say
from ..signals import INTERRUPTED
from ..training import open_data
from .outcomes import Known, collect, from_json, read_known
from .page import NUMBERS, write_docs, write_report
from .plan import PROGRAM, Options, Planned, Side, check, check_same, plan
from .work import TRAINERS, Log, Trainer, work

DOCS = Path(__file__).parents[2] / "docs"
STOPPED = "stopped; the same command continues"


def main(argv: Sequence[str], trainers: dict[Side, Trainer] = TRAINERS, docs: Path = DOCS) -> int:
    """Runs the command and returns its exit status.

    0; 1 where a run failed or the results cannot be written; 2 for bad input; 128 and the signal's number where it was
    stopped.
    """
    try:
        options = read_options(Options, PROGRAM, argv)
        if options.renew:
            check_alone(options)
            return tell(write_docs(from_json((docs / NUMBERS).read_text(encoding="utf-8")), docs))
        return run(options, *prepare(options), trainers, docs)
    except (ValueError, ImportError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return INTERRUPTED


def check_alone(options: Options) -> None:
    """Raises ``ValueError`` where options are given beside ``--renew``, which has those of the kept report."""
    given = [name for name, default in vars(Options()).items() if getattr(options, name) != default]
    others = [flag(name) for name in given if name != "renew"]
    if others:
        raise ValueError(f"--renew must be the only option, as it reads no runs, got {', '.join(others)} too")


def prepare(options: Options) -> tuple[list[Planned], Source | None, Known]:
    """Validates everything before the first run; returns all runs, the images if any are trained, and known runs.

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
    twins = any(each.key.side == "pytorch" for each in missing(runs, known))
    if twins and importlib.util.find_spec("torch") is None:
        raise ImportError("twins need PyTorch: pip install -e '.[torch]'; --twins without a protocol trains none")
    source = open_data(runs[0].config)
    known.check_images(source.identity)
    for each in runs:
        check_batch_size(each.config.batch_size, source.train)
        if (each.path / CONFIG).is_file():
            RunFolder(each.path).check_data(source)
    return runs, source, known


def missing(runs: Sequence[Planned], known: Known) -> list[Planned]:
    """The runs that no other report holds."""
    return [each for each in runs if each.key not in known.outcomes]


def run(
    options: Options,
    runs: list[Planned],
    source: Source | None,
    known: Known,
    trainers: dict[Side, Trainer],
    docs: Path,
) -> int:
    """Trains what is missing, and writes the results so far; returns the exit status."""
    log = Log(Path(options.runs))
    if source is not None:
        code = work(missing(runs, known), source, log, trainers, Console())
        if code:
            print(STOPPED, file=sys.stderr)
            return code
    report = collect(options, runs, log, known)
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
