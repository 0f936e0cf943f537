"""The Python in the documentation runs, from top to bottom, and prints what stands below it."""

import contextlib
import doctest
import io
import re
import shlex
from pathlib import Path

import pytest

from train.__main__ import main

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/porting.md")
FENCED = re.compile(r"```(\w+)\n(.*?)```", flags=re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("page", PAGES)
def test_the_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = FENCED.findall((ROOT / page).read_text())
    assert sum(language == "python" for language, _ in blocks) >= 4
    namespace = {}
    printed = ""
    for language, text in blocks:
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                exec(compile(text, page, "exec"), namespace)
            printed = stdout.getvalue()
        elif language == "text":
            assert doctest.OutputChecker().check_output(text, printed, FLAGS), f"{text}\n--- is not ---\n{printed}"


def test_the_windows_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("train.__main__.use_all_cores", lambda: None)
    text = (ROOT / "docs/data.md").read_text()
    namespace = {}
    for language, code in FENCED.findall(text[text.index("## Arrays and windows") :]):
        if language == "python":
            exec(compile(code, "docs/data.md", "exec"), namespace)
        else:
            words = shlex.split(code)
            assert words[:3] == [".venv/bin/python", "-m", "train"]
            assert main([*words[3:], "--epochs", "1", "--batch-size", "50"]) == 0
    assert "twin" in namespace


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "docs/parity.md", "docs/data.md", "docs/results.md"])
def test_links_inside_the_project_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
