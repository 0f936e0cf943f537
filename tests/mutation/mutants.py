"""The mutants of a source file, as cosmic-ray makes them, less those that are the same program."""

import ast
import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import WorkerOutcome, WorkItem, WorkResult

SAME = WorkResult(worker_outcome=WorkerOutcome.SKIPPED, output="the same program, or none")


@dataclass(frozen=True, order=True)
class Mutant:
    """What the list of equivalent mutants knows one by.

    Attributes:
        file: relative to the root of the project.
        scope: the function around it, "CBAM.__init__", or "" at the top of the file.
        line: the line that changes, without its indentation.
        becomes: what it changes to; "" where it is taken out.
    """

    file: str
    scope: str
    line: str
    becomes: str


def open_session(file: str, results: Path) -> WorkDB:
    """The session of a source file: a database with a row per mutant, new whenever the source changes."""
    source = Path(file).read_bytes()
    path = results / f"{session_name(file)}.{hashlib.sha256(source).hexdigest()[:12]}.sqlite"
    if path.exists():
        return WorkDB(path, WorkDB.Mode.open)
    unfinished = path.with_suffix(".partial")
    unfinished.unlink(missing_ok=True)
    session = WorkDB(unfinished, WorkDB.Mode.create)
    init([Path(file)], session, {})
    same = [item.job_id for item in session.work_items if is_same_program(source.decode(), mutate(file, item))]
    session.set_multiple_results(same, SAME)
    session.close()
    unfinished.rename(path)
    return WorkDB(path, WorkDB.Mode.open)


def session_name(file: str) -> str:
    """What the names of a file's sessions start with."""
    return file.removesuffix(".py").replace("/", ".")


def mutate(file: str, item: WorkItem) -> str:
    """The text of the file with one mutation in it."""
    (mutation,) = item.mutations
    code = Path(file).read_text()
    mutated = mutate_code(code, get_operator(mutation.operator_name)(), mutation.occurrence)
    return code if mutated is None else mutated


def is_same_program(code: str, mutated: str) -> bool:
    """Whether a mutant is filtered out: everything that changes what Python runs stays in.

    Two kinds are left out. Annotations are read by mypy and not by the program: ``int | None`` makes eleven mutants,
    and each would fail while the file is imported, which says nothing about the tests. And what is no Python at all:
    cosmic-ray takes the ``*`` of keyword-only arguments and of ``*args`` for a product.
    """
    try:
        return _without_annotations(mutated) == _without_annotations(code)
    except SyntaxError:
        return True


def _without_annotations(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    warnings.simplefilter("ignore", SyntaxWarning)  # of `x is 1`
    compile(code, "mutant", "exec")  # `return` outside of a function, say, is found here only
    return ast.dump(tree)


def describe(file: str, item: WorkItem) -> Mutant:
    """The mutant as the list knows it."""
    code = Path(file).read_text()
    number = item.mutations[0].start_pos[0]
    before, after = code.splitlines(), mutate(file, item).splitlines()
    # A decorator that is taken out is the one mutation that changes the number of lines.
    becomes = after[number - 1] if len(after) == len(before) else ""
    return Mutant(file, scope(code, number), before[number - 1].strip(), becomes.strip())


def scope(code: str, number: int) -> str:
    """The dotted name of the innermost function or class around a line."""
    names = []
    inside = ast.parse(code).body
    while inside:
        around = [node for node in inside if _first_line(node) <= number <= node.end_lineno]
        names += [node.name for node in around if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        inside = [child for node in around for child in ast.iter_child_nodes(node) if hasattr(child, "end_lineno")]
    return ".".join(names)


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
