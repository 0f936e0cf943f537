"""The command: trains the runs that are missing, one after the other, and writes the tables after each."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import tyro
from rich.console import Console
from rich.rule import Rule

from ..data.feed import check_batch_size
from ..look import SCORES
from ..loop import Run
from ..runs import CONFIG, RunFolder, differences
from ..show import say
from ..signals import Stop
from ..tasks import task_of
from ..text import data_title, first_line
from ..training import main as train
from ..training import parse
from .costs import measure
from .page import NUMBERS, write_report
from .pictures import write_pictures
from .runs import PROGRAM, SAME, Options, Planned, Report, outcome_of, plan, read_report, select_rows


def main(argv: Sequence[str]) -> int:
    """Trains what is missing and adds it to the results, then measures costs; ``--no-train`` leaves the training out.

    Returns the exit status: 1 where a run failed, 128 and the signal's number where it was stopped.
    """
    options = tyro.cli(Options, prog=PROGRAM, args=argv)
    out = Path(options.out)
    report, missing = prepare(options, out / NUMBERS) if options.train else (read_report(out / NUMBERS), [])
    kinds: dict[str, type[Run]] = {"ours": Run}
    if any(each.key.side == "pytorch" for each in missing):
        from ..twin import Twin  # PyTorch

        kinds["pytorch"] = Twin
    failed: list[str] = []
    with Stop() as stop:  # also catches a signal that came too late for a run
        for _ in complete(report, missing, failed, kinds, select_rows(options.rows) if options.costs else []):
            if report.outcomes:
                write_report(report, out)
            if stop:
                print("stopped; the same command continues", file=sys.stderr)
                return stop.status
            jax.clear_caches()  # the next network shares no program with this one
    for path in write_report(report, out) if report.outcomes else []:
        say(Console(), f"written: {path}")
    for path in write_pictures(Path(options.runs), Path(options.pictures)) if options.pictures else []:
        say(Console(), f"written: {path}")
    if failed:
        print(f"error: these runs failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def complete(
    report: Report, missing: list[Planned], failed: list[str], kinds: dict[str, type[Run]], rows: list[str]
) -> Iterator[None]:
    """Adds to the report what is missing, run by run, then the costs of those of ``rows`` that have results alone."""
    for number, each in enumerate(missing, start=1):
        say(Console(), Rule(f"{number} of {len(missing)}: {each.key.name}"))
        # A run that has scores only needs to be added to the results.
        if (each.path / SCORES).is_file() or train_one(each, kinds[each.key.side]) == 0:
            report.outcomes.append(outcome_of(each))
        else:
            failed.append(each.key.name)
        yield
    lacking = {outcome.row for outcome in report.outcomes} - {cost.row for cost in report.costs}
    for row in rows:
        if row in lacking:
            report.costs.append(measure(row, report.options["batch_size"], *report.images["image_size"]))
            yield


def prepare(options: Options, file: Path) -> tuple[Report, list[Planned]]:
    """A report with the results in ``file``, if there are some, and the runs that it lacks.

    Raises ``ValueError`` for results, or run folders, of other options or images.
    """
    runs = plan(options)
    source = task_of(runs[0].config).open(runs[0].config.data)
    check_batch_size(max(each.config.batch_size for each in runs), source.train)
    same = {name: getattr(options, name) for name in SAME}
    report = Report({"data": data_title(options.data), **same}, source.identity, [])
    if file.is_file():
        kept = read_report(file)
        if differing := differences(kept.options | kept.images, same | report.images):
            raise ValueError(f"--out must have no results of other options or images, got {file}: {differing}")
        report.outcomes.extend(kept.outcomes)
        report.costs.extend(kept.costs)
    finished = {outcome.name for outcome in report.outcomes}
    missing = [each for each in runs if each.key.name not in finished]
    for each in missing:
        if (each.path / CONFIG).is_file():
            parse(["--resume", str(each.path), *each.words])
            RunFolder(each.path).check_data(source)
    return report, missing


def train_one(run: Planned, kind: type[Run]) -> int:
    """Begins or resumes a run, as ``python -m train`` does, and returns the exit status."""
    resume = ["--resume", str(run.path)] if (run.path / CONFIG).is_file() else []
    try:
        return train([*resume, *run.words], kind)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return 1
