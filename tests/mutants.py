"""Measures the tests: changes one operator, number or condition of flax_attn at a time and runs what should notice.

    python -m tests.mutants                                    # a sample, another one every week
    python -m tests.mutants --count 1000 flax_attn/ops/pooling.py    # all mutants of one file

Prints every mutant that survives, as a difference. Some survivors compute the same as the original, so the score is
held against a limit below 1; exit status 1 means it was missed. The checkout is not changed: tests run in copies.
"""

import argparse
import ast
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("ops", "layers", "blocks", "convert")
COPIED = ("flax_attn", "torch_ref", "train", "tests", "pyproject.toml", "README.md")
SECONDS = 600  # a mutant may loop for ever
ENVIRONMENT = {
    "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax")),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": "",
}

# For each folder, the tests that know it, beside the test file of the same name and the module's own examples.
TESTS = {
    "ops": ["tests/ops", "tests/test_bad_input.py", "tests/blocks", "tests/test_program.py"],
    "layers": ["tests/layers", "tests/test_bad_input.py", "tests/blocks"],
    "blocks": ["tests/blocks", "tests/test_bad_input.py", "tests/test_mirror.py", "tests/ops/test_maps.py"],
    "convert": ["tests/convert"],
}
COMPARISONS = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
}
OPERATORS = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And, ast.MatMult: ast.Mult},
}


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: Path
    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}\n- {self.before}\n+ {self.after}"


def unchanged(file: Path) -> Mutant:
    return Mutant(file, 0, "", "", (ROOT / file).read_text())


def changes(node: ast.AST) -> Iterator[ast.expr]:
    """What an expression is changed to."""
    match node:
        case ast.Compare(left, [operator, *others], comparators) if type(operator) in COMPARISONS:
            yield ast.Compare(left, [COMPARISONS[type(operator)](), *others], comparators)
        case ast.BinOp(left, operator, right) if type(operator) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(operator)](), right)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(OPERATORS[type(operator)](), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.IfExp(test, body, otherwise):
            yield ast.IfExp(test, otherwise, body)
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() as value):
            # Downwards: JAX reads the last element where an index is too large.
            yield ast.Constant(value - 1 if value > 0 else 1)
        case ast.Constant(float() as value):
            yield ast.Constant(2 * value or 1.0)


def expressions(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below ``node`` that runs: no annotations, decorators or text inside strings."""
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list") and not isinstance(node, ast.JoinedStr):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from expressions(child)


def mutants(file: Path) -> Iterator[Mutant]:
    """All mutants of a file."""
    source = file.read_text()
    lines = source.splitlines(keepends=True)
    for node in expressions(ast.parse(source)):
        for changed in changes(node):
            if node.lineno == node.end_lineno:
                line = lines[node.lineno - 1]
                # In parentheses, as the change may bind more loosely than what was there.
                new = f"{line[: node.col_offset]}({ast.unparse(changed)}){line[node.end_col_offset :]}"
                text = "".join([*lines[: node.lineno - 1], new, *lines[node.lineno :]])
                yield Mutant(file.relative_to(ROOT), node.lineno, line.strip(), new.strip(), text)


def tests_of(file: Path) -> list[str]:
    """The tests that should notice a change of ``file``, those that know it best first."""
    folder = file.parent.name
    named = f"tests/{folder}/test_{file.name}"
    # The file's examples last: pytest imports it by its path once more, and classes then exist twice.
    return [*([named] if (ROOT / named).is_file() else []), *TESTS[folder], str(file)]


def failure(mutant: Mutant, copies: "queue.Queue[Path]") -> str:
    """What the tests say about the mutant, "" where all pass."""
    copy = copies.get()
    path = copy / mutant.file
    original = path.read_text()
    try:
        path.write_text(mutant.source)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests_of(mutant.file)]
        environment = {**os.environ, **ENVIRONMENT}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=SECONDS, text=True)
        return done.stdout[-4000:] + done.stderr[-4000:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        return f"not done after {SECONDS} s"
    finally:
        path.write_text(original)
        copies.put(copy)


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="source files; all of ops, layers, blocks and convert")
    parser.add_argument("--count", type=int, default=40, help="size of the sample (40)")
    parser.add_argument(
        "--seed", type=int, default=int(f"{date.today():%G%V}"), help="of the sample; by default the week"
    )
    parser.add_argument("--jobs", type=int, default=2, help="tests that run at a time (2)")
    parser.add_argument("--least", type=float, default=0.85, help="the share that has to be noticed (0.85)")
    options = parser.parse_args()

    files = [file.resolve() for file in options.files]
    files = files or sorted(file for folder in FOLDERS for file in (ROOT / "flax_attn" / folder).glob("*.py"))
    if wrong := [file for file in files if file.parent.name not in TESTS or not file.is_file()]:
        parser.error(f"files must be source files in flax_attn/{{{','.join(FOLDERS)}}}, got {wrong[0]}")
    found = [mutant for file in files for mutant in mutants(file)]
    sample = random.Random(options.seed).sample(found, min(options.count, len(found)))

    copies: queue.Queue[Path] = queue.Queue()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        for job in range(options.jobs):
            for name in COPIED:
                target = Path(folder) / str(job) / name
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, target)
            copies.put(Path(folder) / str(job))
        # One file of each folder as it is: tests that fail anyway would notice everything.
        as_they_are = [unchanged(file) for file in {mutant.file.parent: mutant.file for mutant in sample}.values()]
        for same, output in zip(as_they_are, pool.map(lambda same: failure(same, copies), as_they_are), strict=True):
            if output:
                raise SystemExit(f"without a mutant {' '.join(tests_of(same.file))} must pass, got\n{output}")
        survivors = 0
        for mutant, output in zip(sample, pool.map(lambda mutant: failure(mutant, copies), sample), strict=True):
            survivors += not output
            print(f"noticed:  {mutant.file}:{mutant.line}" if output else f"survives: {mutant}", flush=True)
    score = 1 - survivors / len(sample)
    print(
        f"{len(sample)} of {len(found)} mutants, {survivors} survive: {score:.0%} noticed, {options.least:.0%} wanted"
    )
    return 0 if score >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
