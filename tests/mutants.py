"""Measures the tests: changes one operator, number or condition of flax_attn at a time and runs what should notice.

    python -m tests.mutants                                    # twenty of each file
    python -m tests.mutants --count 1000 flax_attn/ops/pooling.py    # all mutants of one file

First the file's own tests and the parity of its cases; a mutant that survives these meets the tests of what uses the
file. Prints every mutant that survives, as a difference. tests/mutants.txt has those that are right as they are, with
the reason; exit status 1 means that another one survived. The checkout is not changed.
"""

import argparse
import ast
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.util import spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXPLAINED = ROOT / "tests/mutants.txt"
SECONDS = 600  # a mutant may loop for ever
MOST_USERS = 8  # files whose tests a surviving mutant of a layer or function meets; some have forty
# Read where JAX and PyTorch are imported, which is before tests/conftest.py.
ENVIRONMENT = {
    "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax")),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "OMP_NUM_THREADS": "1",
}
# Imported once, then every mutant has a fork: a new process would take longer to import these than to run the tests.
IMPORTED = ["jax", "flax.nnx", "optax", "torch", "einops", "safetensors.numpy", "scipy.special", "pytest", "hypothesis"]

# For each folder, further tests that know it.
TESTS = {
    "ops": ["tests/ops", "tests/test_program.py"],
    "layers": ["tests/layers"],
    "blocks": [
        "tests/test_mirror.py",
        "tests/test_options.py",
        "tests/ops/test_maps.py",
        "tests/layers/test_initial_values.py",
    ],
    "networks": ["tests/test_mirror.py", "tests/test_options.py", "tests/ops/test_maps.py"],
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
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.file}\n- {self.before}\n+ {self.after}"


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
    """Every node below ``node`` that runs: no annotations, decorators or text inside strings, nor ``strict=``."""
    yield node
    for name, value in ast.iter_fields(node):
        idle = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.keyword) and node.arg == "strict")
        if name not in ("annotation", "returns", "decorator_list") and not idle:
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
                yield Mutant(file.relative_to(ROOT), line.strip(), new.strip(), text)


class Planted(MetaPathFinder, Loader):
    """Imports a mutant in place of its file."""

    def __init__(self, mutant: Mutant):
        self.mutant = mutant

    def find_spec(self, name, path=None, target=None):
        is_mutant = name == ".".join(self.mutant.file.with_suffix("").parts)
        return spec_from_file_location(name, ROOT / self.mutant.file, loader=self) if is_mutant else None

    def exec_module(self, module):
        exec(compile(self.mutant.source, module.__file__, "exec"), vars(module))


def own_tests(file: Path) -> list[str]:
    """The parity of the cases of the module, its defaults, and the test file of the same name."""
    from torch_ref.cases import CASES

    folder = file.parent.name
    named = f"tests/{folder}/test_{file.name}"
    kind = "block" if folder == "blocks" else "network"
    cases = [case.name for case in CASES if case.module == f"{folder}.{file.stem}"]
    parity = [f"tests/test_parity.py::test_{kind}_in_float64[{name}]" for name in cases]
    mirror = ["tests/test_mirror.py::test_constructors_take_the_same_arguments"] if cases else []
    return [*parity, *mirror, *([named] if (ROOT / named).is_file() else [])] or [f"tests/{folder}"]


def further_tests(file: Path) -> list[str]:
    """The tests of the blocks and networks that use the file, its originals and examples, and those of its folder."""
    from torch_ref.originals import find_originals

    definitions = ast.parse((ROOT / file).read_text()).body
    names = [node.name for node in definitions if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    used = re.compile(rf"(import .*|ops\.)\b({'|'.join(names)})\b")
    modules = [path for folder in ("blocks", "networks") for path in (ROOT / "flax_attn" / folder).glob("*.py")]
    users = [path.relative_to(ROOT) for path in sorted(modules) if names and used.search(path.read_text())]
    originals = [one.name for one in find_originals() if one.block in names]
    return [
        *[test for user in users[:MOST_USERS] for test in own_tests(user)],
        *[f"tests/test_originals.py::test_ours_is_the_original[{name}]" for name in originals],
        "tests/test_bad_input.py",
        *TESTS[file.parent.name],
        str(file),
    ]


def run_tests(mutant: Mutant, folder: Path) -> None:
    """In a process of its own: exits with status 0 if the mutant survives, the file as it is if its own tests pass."""
    import pytest

    with open(folder / "output", "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.meta_path.insert(0, Planted(mutant))
    for find in (own_tests, further_tests) if mutant.after else (own_tests,):
        if pytest.main(["-q", "-x", "-p", "no:cacheprovider", f"--basetemp={folder}/tmp", *find(mutant.file)]):
            sys.exit(1)


def failure(mutant: Mutant) -> str:
    """What the tests say about the mutant, "" where all pass."""
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        output.touch()
        process = context.Process(target=run_tests, args=(mutant, Path(folder)))
        process.start()
        process.join(SECONDS)
        process.kill()
        process.join()
        return output.read_text()[-4000:] or "nothing" if process.exitcode else ""


def explained() -> set[str]:
    """The mutants in tests/mutants.txt, each followed by its reason and an empty line."""
    entries = EXPLAINED.read_text().split("\n\n")
    return {"\n".join(entry.strip().splitlines()[:3]) for entry in entries if entry.startswith("flax_attn/")}


def sampled(file: Path, count: int, seed: int) -> list[Mutant]:
    """A sample of a file's mutants, which a change of other lines does not change."""
    found = {str(mutant): mutant for mutant in mutants(file)}
    return sorted(found.values(), key=lambda mutant: random.Random(f"{seed} {mutant}").random())[:count]


def survivors_of(file: Path, tried: list[Mutant], pool: ThreadPoolExecutor) -> list[Mutant]:
    """Those that no test notices; without a mutant the tests must pass, or they would notice everything."""
    as_it_is = Mutant(file.relative_to(ROOT), "", "", file.read_text())
    output, *outputs = pool.map(failure, [as_it_is, *tried])
    if output:
        raise SystemExit(f"without a mutant {' '.join(own_tests(as_it_is.file))} must pass, got\n{output}")
    return [mutant for mutant, output in zip(tried, outputs, strict=True) if not output]


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help=f"source files; by default all of {', '.join(TESTS)}")
    parser.add_argument("--count", type=int, default=20, help="mutants of each file (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants that run at a time (2)")
    options = parser.parse_args()

    files = [file.resolve() for file in options.files]
    files = files or sorted(file for folder in TESTS for file in (ROOT / "flax_attn" / folder).glob("*.py"))
    if wrong := [file for file in files if file.parent.name not in TESTS or not file.is_file()]:
        parser.error(f"files must be source files in flax_attn/{{{','.join(TESTS)}}}, got {wrong[0]}")

    os.environ.update(ENVIRONMENT)
    multiprocessing.set_forkserver_preload(IMPORTED)
    known = explained()
    if gone := known - {
        str(mutant) for file in {entry.split("\n")[0] for entry in known} for mutant in mutants(ROOT / file)
    }:
        raise SystemExit("\n\n".join([f"{EXPLAINED.name} must list mutants that exist, got", *sorted(gone)]))
    total = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for file in files:
            start = time.monotonic()
            sample = sampled(file, options.count, options.seed)
            tried = [mutant for mutant in sample if str(mutant) not in known]
            survivors = survivors_of(file, tried, pool) if tried else []
            total += len(survivors)
            for mutant in survivors:
                print(f"survives: {mutant}")
            counts = f"{len(sample)} mutants, {len(sample) - len(tried)} explained, {len(survivors)} survive"
            print(f"{file.relative_to(ROOT)}: {counts}, {time.monotonic() - start:.0f} s", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
