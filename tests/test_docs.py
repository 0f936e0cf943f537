"""The Python in the documentation runs, from top to bottom, and prints what stands below it; links and names exist."""

import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import flax_attn
from flax_attn.registry import BLOCKS
from train.__main__ import main

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
FENCED = re.compile(r"```(\w+)\n(.*?)```", flags=re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def code(page):
    return FENCED.findall((ROOT / page).read_text())


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != "docs/data.md" and any(kind == "python" for kind, _ in code(page))]
)
def test_the_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    printed = ""
    for language, text in code(page):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                exec(compile(text, page, "exec"), namespace)
            printed = stdout.getvalue()
        elif language == "text":
            assert doctest.OutputChecker().check_output(text, printed, FLAGS), f"{text}\n--- is not ---\n{printed}"


def test_the_windows_in_docs_data_are_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    text = (ROOT / "docs/data.md").read_text()
    for language, lines in FENCED.findall(text[text.index("## Arrays and windows") :]):
        if language == "python":
            exec(compile(lines, "docs/data.md", "exec"), namespace)
        else:
            words = shlex.split(lines)
            assert words[:3] == [".venv/bin/python", "-m", "train"]
            assert main([*words[3:], "--epochs", "1", "--batch-size", "50"]) == 0
    assert "twin" in namespace


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_project_lead_somewhere(page):
    path = ROOT / page
    for target, heading in re.findall(r"\]\((?!https?://|#)([^)#]+)(?:#([^)]+))?\)", path.read_text()):
        assert (path.parent / target).exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", (path.parent / target).read_text(), flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], heading


def test_the_readme_and_contributing_are_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 80


def test_the_site_has_every_page_and_module():
    """docs/conf.py takes the names of a module from the module itself, so the modules are what can be missing."""
    listed = re.findall(r"^   (flax_attn\S*)$", (ROOT / "docs/api.rst").read_text(), flags=re.MULTILINE)
    packages = {module.name for module in pkgutil.iter_modules(flax_attn.__path__) if module.name[0] != "_"}
    expected = {"flax_attn", *(f"flax_attn.{name}" for name in packages - {"blocks", "networks", "options"})}
    networks = importlib.import_module("flax_attn.networks")
    expected |= {f"flax_attn.networks.{module.name}" for module in pkgutil.iter_modules(networks.__path__)}
    assert expected <= set(listed)
    contents = (ROOT / "docs/index.md").read_text().split()
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"api"}
    assert {"index", *(word for word in contents if word in pages)} == pages


def test_every_class_of_a_block_is_imported_from_the_top():
    """So each has its page on the site."""
    blocks = importlib.import_module("flax_attn.blocks")
    for module in pkgutil.iter_modules(blocks.__path__, "flax_attn.blocks."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(value) and value.__module__ == module.name and name[0] != "_":
                assert getattr(flax_attn, name, None) is value, name


def test_every_block_of_the_table_is_in_the_docs():
    text = (ROOT / "docs/blocks.md").read_text()
    for entry in BLOCKS:
        assert f"| `{entry.name}` | [`{entry.block.__name__}`](../flax_attn/blocks/" in text


@pytest.mark.parametrize("module", sorted({entry.block.__module__ for entry in BLOCKS}))
def test_a_block_says_its_equation_and_what_differs(module):
    """Its page on the site begins with the text of its file."""
    text = inspect.getdoc(importlib.import_module(module))
    formulas = [formula for formula in re.findall(r"``(.+?)``", text, flags=re.DOTALL) if " " in formula]
    assert any(re.search(r"[*+=.(]", formula) for formula in formulas), "an equation between double backquotes"
    assert re.search(r"^Differs from\b", text, flags=re.MULTILINE), "what it differs from, or that nothing differs"
    assert not re.search(r"^(?!- |  ).+\n- ", text, flags=re.MULTILINE), "a blank line before a list"


def test_pictures_of_blocks_are_small_and_named_after_them():
    sizes = {path.stem: path.stat().st_size for path in (ROOT / "docs/blocks").iterdir()}
    assert sizes.keys() <= {entry.name for entry in BLOCKS}
    assert max(sizes.values()) <= 24_000
    assert sum(sizes.values()) <= 1_200_000
