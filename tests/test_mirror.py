"""The mirror: files, classes, arguments and parameters stand on both sides; every class has its case and its test."""

import ast
import importlib
import inspect
from pathlib import Path
from typing import Unpack

import pytest

import flax_attn
from flax_attn import Options
from flax_attn.registry import BLOCKS
from torch_ref.cases import CASES
from torch_ref.pairs import find_class, make_pair

ROOT = Path(__file__).parent.parent
FOLDERS = ("blocks", "networks")
OPTIONS = ("rngs", "options")  # what Flax needs and PyTorch has no word for
# What serves other blocks, or computes something else than a map from a map, is not in the table.
NOT_IN_THE_TABLE = {
    "BasicConv",
    "ChannelAttention",
    "ChannelPool",
    "LearnedPositionEncoding2d",
    "ScaledDotProductAttention",
    "SinePositionEncoding2d",
    "WindowAttention",
}


def files(package):
    return {
        f"{folder}/{path.stem}"
        for folder in FOLDERS
        for path in (ROOT / package / folder).glob("*.py")
        if path.stem != "__init__"
    }


def public_classes(package, file):
    name = f"{package}.{file.replace('/', '.')}"
    module = importlib.import_module(name)
    return {
        key
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == name and not key.startswith("_")
    }


FILES = sorted(files("flax_attn"))
CLASSES = sorted((file, name) for file in FILES for name in public_classes("flax_attn", file))


def test_the_same_files_stand_on_both_sides():
    assert files("flax_attn") == files("torch_ref")


def test_every_file_has_its_test_file():
    tested = {
        f"{folder}/{path.stem.removeprefix('test_')}"
        for folder in FOLDERS
        for path in (ROOT / "tests" / folder).glob("test_*.py")
    }
    assert tested == files("flax_attn")


@pytest.mark.parametrize("file", FILES)
def test_the_same_classes_stand_on_both_sides(file):
    assert public_classes("flax_attn", file) == public_classes("torch_ref", file)


@pytest.mark.parametrize(("file", "name"), CLASSES)
def test_constructors_take_the_same_arguments(file, name):
    ours, theirs = (
        inspect.signature(getattr(importlib.import_module(f"{package}.{file.replace('/', '.')}"), name).__init__)
        for package in ("flax_attn", "torch_ref")
    )
    theirs = [(key, value.default) for key, value in theirs.parameters.items() if key not in ("args", "kwargs")]
    assert [(key, value.default) for key, value in ours.parameters.items() if key not in OPTIONS] == theirs
    rngs, options = (ours.parameters[key] for key in OPTIONS)
    assert (rngs.kind, rngs.default) == (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty)
    assert options.annotation == Unpack[Options]


@pytest.mark.parametrize(("file", "name"), CLASSES)
def test_calls_take_the_same_arguments(file, name):
    module = file.replace("/", ".")
    ours = inspect.signature(getattr(importlib.import_module(f"flax_attn.{module}"), name).__call__)
    theirs = inspect.signature(getattr(importlib.import_module(f"torch_ref.{module}"), name).forward)
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
        (p.name, p.kind, p.default) for p in theirs.parameters.values()
    ]


@pytest.mark.parametrize(("file", "name"), CLASSES)
def test_every_class_has_a_case(file, name):
    assert any((case.module, case.class_name) == (file.replace("/", "."), name) for case in CASES)


def test_every_block_stands_in_the_table():
    named = {name for file, name in CLASSES if file.startswith("blocks/")}
    assert {entry.block.__name__ for entry in BLOCKS} == named - NOT_IN_THE_TABLE


def test_case_names_are_unique():
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_parameters_stand_on_both_sides(case):
    pair = make_pair(case)
    ours = {name: array.shape for name, array in flax_attn.to_torch(pair.flax_module).items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in pair.torch_module.state_dict().items()}
    assert ours == theirs


@pytest.mark.parametrize(("file", "name"), [pair for pair in CLASSES if pair[0].startswith("blocks/")])
def test_blocks_are_imported_from_the_top(file, name):
    case = next(case for case in CASES if case.class_name == name)
    assert getattr(flax_attn, name) is find_class("flax_attn", case)


def imported(path):
    """The absolute names of the modules that a file imports."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join(filter(None, (*above, node.module)))
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("flax_attn", ("torch_ref", "train", "tests")),
        ("flax_attn/blocks", ("flax_attn.networks",)),
        ("torch_ref/blocks", ("torch_ref.networks", "flax_attn", "jax", "flax")),
        ("torch_ref/networks", ("flax_attn", "jax", "flax")),
    ],
)
def test_who_imports_whom(folder, forbidden):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name in imported(path)
        if any(name == module or name.startswith(f"{module}.") for module in forbidden)
    ]
    assert wrong == []
