"""The list of equivalent mutants speaks of lines that are there, and gives a reason for each."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRIES = tomllib.loads(Path(__file__).with_name("equivalent.toml").read_text())["mutant"]


def lines_of(file, scope):
    """The lines of a function or class, without indentation; of the whole file where the scope is ""."""
    text = Path(ROOT, file).read_text()
    node = ast.parse(text)
    for name in filter(None, scope.split(".")):
        node = next(inner for inner in ast.walk(node) if getattr(inner, "name", None) == name)
    first = min([getattr(node, "lineno", 1), *(each.lineno for each in getattr(node, "decorator_list", []))])
    return [line.strip() for line in text.splitlines()[first - 1 : getattr(node, "end_lineno", None)]]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry['file']}-{entry['line']}")
def test_an_entry_names_a_line_that_is_there_and_a_reason(entry):
    assert entry.keys() == {"file", "scope", "line", "becomes", "reason"}
    assert entry["line"] in lines_of(entry["file"], entry["scope"])
    assert entry["becomes"]
    assert entry["line"] not in entry["becomes"]
    assert len(entry["reason"].split()) >= 5


def test_no_mutant_is_listed_twice():
    mutants = [
        (*(entry[key] for key in ("file", "scope", "line")), text) for entry in ENTRIES for text in entry["becomes"]
    ]
    assert len(set(mutants)) == len(mutants)
