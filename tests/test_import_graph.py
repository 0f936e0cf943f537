"""The imports of the project form no circle, those inside functions and for types included."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("flax_attn", "torch_ref", "train", "tests")


def module_files(root, packages):
    """The files of all modules, by dotted name."""
    files = {}
    for package in packages:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imported(name, path, known):
    """The modules among ``known`` that a module imports."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = [f"{base}.{alias.name}" for alias in node.names]
            targets = [target if target in known else base for target in inner]
        yield from (each for target in targets for each in with_packages(target, name) if each in known)


def with_packages(target, name):
    """A module, and the packages around it: Python runs these first. Those around both have begun to run already."""
    parts = target.split(".")
    yield target
    for end in range(1, len(parts)):
        package = ".".join(parts[:end])
        if package != name and not name.startswith(f"{package}."):
            yield package


def import_graph(root=ROOT, packages=PACKAGES):
    files = module_files(root, packages)
    return {name: set(imported(name, path, files)) for name, path in files.items()}


def circle(graph):
    """Modules that import each other in a ring, [] if there are none."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def test_no_circle():
    assert circle(import_graph()) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("from . import second", "from .first import x"),
        ("import package.second", "def f():\n    from package.first import x"),
        ("from .second import x as y", "from package import first"),
        ("from .second import x", "if TYPE_CHECKING:\n    from .first import Y"),
    ],
)
def test_a_circle_is_found(first, second, tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "first.py").write_text(first)
    (folder / "second.py").write_text(second)
    assert set(circle(import_graph(tmp_path, ["package"]))) == {"package.first", "package.second"}


def test_a_package_may_export_names_of_its_modules(tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .first import x")
    (folder / "first.py").write_text("from .second import x\nfrom package.second import y")
    (folder / "second.py").write_text("import package.third")
    assert circle(import_graph(tmp_path, ["package"])) == []
