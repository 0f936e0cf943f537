"""Mutation testing: changes one operator, number, comparison ... of the library at a time and runs the tests on that.

    python tests/mutation/run.py                            # all of blocks, layers, ops and convert: hours
    python tests/mutation/run.py flax_attn/ops/pooling.py   # one file: minutes
    python tests/mutation/run.py --jobs 2 flax_attn/ops

cosmic-ray makes the mutants and keeps the results in ``build/mutants``, so that a run goes on where it was stopped; a
file that changed starts anew, and mutants that survived are tried again when a test changed (``--fresh`` tries all).
Nothing in the checkout is changed: each job works on a copy.

A mutant that survives is either a test that is missing or the same function in other words. The latter stand in
``equivalent.toml`` with the reason. Exit status 1: a survivor is not in the list, or the mutant of an entry does not
survive (any more).
"""

import argparse
import contextlib
import functools
import hashlib
import multiprocessing
import os
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import judge
import mutants
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "build" / "mutants"
LIST = Path(__file__).with_name("equivalent.toml")
FOLDERS = ("flax_attn/ops", "flax_attn/layers", "flax_attn/blocks", "flax_attn/convert")

# What judges a file beside the test file of its name and its own examples, few tests that take seconds.
ALSO = {
    "flax_attn/blocks": [
        "tests/test_mirror.py::test_constructors_take_the_same_arguments",
        "tests/test_mirror.py::test_calls_take_the_same_arguments",
        "tests/test_bad_input.py",
    ],
    "flax_attn/convert": ["tests/convert/test_state_dict.py"],
    "flax_attn/convert/rules.py": ["tests/convert/test_layers.py"],
    "flax_attn/convert/state_dict.py": ["tests/convert/test_walk.py"],
    "flax_attn/convert/walk.py": ["tests/convert/test_rules.py"],
    "flax_attn/layers": ["tests/layers/test_arguments.py", "tests/test_bad_input.py"],
    "flax_attn/layers/conv.py": ["tests/layers/test_initial_values.py"],
    "flax_attn/layers/embedding.py": ["tests/layers/test_linear.py", "tests/layers/test_initial_values.py"],
    "flax_attn/layers/initializers.py": ["tests/layers/test_initial_values.py"],
    "flax_attn/layers/linear.py": ["tests/layers/test_initial_values.py"],
}
# Per folder what is run on mutants that survive those.
WIDER = {
    "flax_attn/ops": ["tests/test_bad_input.py", "tests/layers", "tests/blocks", "tests/test_program.py"],
    "flax_attn/layers": ["tests/layers", "tests/blocks", "tests/test_program.py"],
    "flax_attn/blocks": ["tests/test_mirror.py", "tests/ops/test_dtype.py", "tests/ops/test_maps.py"],
    "flax_attn/convert": ["tests/convert", "tests/test_mirror.py", "tests/layers"],
}


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "paths",
        nargs="*",
        default=[ROOT / folder for folder in FOLDERS],
        metavar="FILE",
        help="files or folders of flax_attn",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with a copy of the project")
    parser.add_argument("--quick", action="store_true", help="only the tests that know a file well")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    options = parser.parse_args()
    files = [file for path in options.paths for file in find_files(path)]

    os.chdir(ROOT)
    RESULTS.mkdir(parents=True, exist_ok=True)
    judge.prepare(RESULTS)
    if options.fresh:
        forget(files)
    for file in files:
        mutants.open_session(file, RESULTS).close()
    workers = [
        multiprocessing.get_context("fork").Process(target=work, args=(files, part, options.jobs, options.quick))
        for part in range(options.jobs)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        return 2
    return report(files)


def forget(files: list[str]) -> None:
    """Deletes the sessions of files."""
    for file in files:
        for session in RESULTS.glob(f"{mutants.session_name(file)}.*"):
            session.unlink()


def find_files(path: str | Path) -> list[str]:
    """The source files that a path names, relative to the root."""
    here = Path(path).resolve()
    files = [file for file in (sorted(here.glob("*.py")) if here.is_dir() else [here]) if file.name != "__init__.py"]
    for file in files or [here]:
        if not file.is_file() or file.parent not in [ROOT / folder for folder in FOLDERS]:
            raise SystemExit(f"FILE must be one of {', '.join(FOLDERS)} or a file in it, got {path}")
    return [file.relative_to(ROOT).as_posix() for file in files]


def tests_of(file: str) -> list[list[str]]:
    """The tests that judge a file: few that know it well, then many."""
    folder, _, name = file.rpartition("/")
    named = f"tests/{folder.removeprefix('flax_attn/')}/test_{name}"
    own = [file, *([named] if Path(named).is_file() else []), *ALSO.get(folder, []), *ALSO.get(file, [])]
    return [own, WIDER[folder]]


def hash_of_the_tests() -> str:
    """Changes with every test."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in ("tests", "torch_ref") for path in (ROOT / folder).rglob("*.py")):
        if path.parent != Path(__file__).parent:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def work(files: list[str], part: int, jobs: int, quick: bool) -> None:
    """Judges every ``jobs``-th mutant of each file, starting with number ``part``, that is not judged yet."""
    judged_by = hash_of_the_tests() + " quick" * quick
    with judge.copy_of_the_project(ROOT) as copy:
        for file in files:
            session = mutants.open_session(file, RESULTS)
            results = dict(session.results)
            items = sorted(session.work_items, key=lambda item: item.job_id)[part::jobs]
            first: list[str] = []
            due = [item for item in items if is_due(results.get(item.job_id), judged_by)]
            for number, item in enumerate(due):
                result = judge_mutant(copy, file, item, quick, judged_by, first)
                session.set_result(item.job_id, result)
                if result.test_outcome == TestOutcome.SURVIVED or number % 20 == 19:
                    print(f"{file}: {number + 1} of {len(due)}, {result.test_outcome.value}", flush=True)
            session.close()


def is_due(result: WorkResult | None, judged_by: str) -> bool:
    """Whether a mutant has to be judged: it never was, or it survived tests that have changed."""
    return result is None or (result.test_outcome == TestOutcome.SURVIVED and result.output != judged_by)


@functools.cache
def measure(copy: Path, tests: tuple[str, ...]) -> float:
    """The seconds that tests may take: three times what they take without a mutation, and ten."""
    verdict = judge.run_tests(copy, list(tests), seconds=1800)
    if not verdict.passed:
        raise RuntimeError(f"{tests} fail without a mutation:\n{verdict.output}")
    return 3 * verdict.seconds + 10


def judge_mutant(copy: Path, file: str, item: WorkItem, quick: bool, judged_by: str, first: list[str]) -> WorkResult:
    """Runs the few tests, then the many; ``first`` are the tests that failed last, which often fail again."""
    for tests in tests_of(file)[: 1 if quick else None]:
        limit = measure(copy, tuple(tests))
        with mutated(copy / file, mutants.mutate(file, item)):
            verdict = judge.run_tests(copy, tests, limit, first)
        if not verdict.passed:
            first[:] = [verdict.failed, *(name for name in first if name != verdict.failed)][:12]
            return WorkResult(WorkerOutcome.NORMAL, verdict.output, TestOutcome.KILLED)
    return WorkResult(WorkerOutcome.NORMAL, judged_by, TestOutcome.SURVIVED)


@contextlib.contextmanager
def mutated(path: Path, text: str) -> Iterator[None]:
    """Replaces the text of a file for a while."""
    original = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(original)


def report(files: list[str]) -> int:
    """Prints the table, writes the survivors, and compares them with the list."""
    known = read_list(files)
    survived: set[mutants.Mutant] = set()
    print(f"\n{'file':40} {'mutants':>8} {'killed':>8} {'(limit)':>8} {'survived':>8}")
    for file in files:
        session = mutants.open_session(file, RESULTS)
        judged = [(item, result) for item, result in session.completed_work_items if result.test_outcome is not None]
        session.close()
        count = Counter(result.test_outcome for _, result in judged)
        limit = sum("\nended by SIG" in (result.output or "") for _, result in judged)
        print(f"{file:40} {len(judged):8} {count[TestOutcome.KILLED]:8} {limit:8} {count[TestOutcome.SURVIVED]:8}")
        survived |= {mutants.describe(file, item) for item, result in judged if not result.is_killed}
    missing, stale = sorted(survived - known), sorted(known - survived)
    text = "".join(map(show, sorted(survived)))
    (RESULTS / "survivors.txt").write_text(text)
    print(f"\n{len(survived)} survivors in {RESULTS.relative_to(ROOT)}/survivors.txt, {len(survived & known)} known")
    for title, found in (("survives and is not in the list", missing), ("is in the list and does not survive", stale)):
        for mutant in found:
            print(f"\n{title}:\n{show(mutant)}", end="")
    return 1 if missing or stale else 0


def read_list(files: list[str]) -> set[mutants.Mutant]:
    """The equivalent mutants of these files."""
    return {
        mutants.Mutant(entry["file"], entry["scope"], entry["line"], becomes)
        for entry in tomllib.loads(LIST.read_text()).get("mutant", [])
        for becomes in entry["becomes"]
        if entry["file"] in files
    }


def show(mutant: mutants.Mutant) -> str:
    """A mutant as a difference."""
    return f"{mutant.file} {mutant.scope}\n- {mutant.line}\n+ {mutant.becomes}\n"


if __name__ == "__main__":
    sys.exit(main())
