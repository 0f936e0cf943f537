"""The commands in the documentation are understood; what they do is tested elsewhere, on smaller things."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

import flax_attn.__main__
import torch_ref.__main__
import train.__main__
from flax_attn import list_blocks
from flax_attn.networks.resnet import RESNETS

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PYTHON = [".venv/bin/python", "-m"]


def commands():
    """The lines of all shell blocks, without their comments."""
    blocks = [block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)]
    found = [tuple(shlex.split(line, comments=True)) for block in blocks for line in block.splitlines()]
    return [list(words) for words in dict.fromkeys(found) if words]


COMMANDS = commands()
INSTALLS = [words for words in COMMANDS if "pip" in words[:3]]
MAKES = [words for words in COMMANDS if words[0] == "make"]
MODULES = {"train": train.__main__.main, "torch_ref": torch_ref.__main__.main, "flax_attn": flax_attn.__main__.main}
STARTED = [words for words in COMMANDS if words[:2] == PYTHON and words[2] in MODULES]
OTHERS = [words for words in COMMANDS if words not in [*INSTALLS, *MAKES, *STARTED]]


def test_there_are_commands_of_each_kind():
    assert len(INSTALLS) >= 3
    assert len(MAKES) >= 3
    assert {words[2] for words in STARTED} == set(MODULES)
    assert len(STARTED) >= 15


@pytest.mark.parametrize("words", MAKES, ids=" ".join)
def test_make_knows_the_target(words):
    subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("words", INSTALLS, ids=" ".join)
def test_an_installation_names_existing_extras_and_files(words):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    given = words[words.index("install") + 1 :]
    if "-c" in given:
        assert (ROOT / given[given.index("-c") + 1]).is_file()
    named = [extra for word in given if word.startswith(".[") for extra in word[2:-1].split(",")]
    assert set(named) <= set(extras)


@pytest.mark.parametrize("words", STARTED, ids=" ".join)
def test_python_understands_the_command(words, tmp_path, monkeypatch, capsys):
    """An unknown option at its end is then the only thing that a command complains about, before it does anything."""
    monkeypatch.chdir(tmp_path)
    main, given = MODULES[words[2]], words[3:]
    if "--help" not in given:
        given = [*given, "--no-such-option"]
    if "--resume" in given:
        assert main(given) == 2
        assert given[given.index("--resume") + 1] in capsys.readouterr().err
        return
    with pytest.raises(SystemExit) as stop:
        main(given)
    shown = re.sub(r"[^\w\s.:-]", "", capsys.readouterr().err).lower()
    assert stop.value.code == (0 if "--help" in given else 2)
    assert "--help" in given or re.search(r"(options|arguments):? --no-such-option", " ".join(shown.split())), shown
    if "--network" in given:
        assert given[given.index("--network") + 1] in ["cnn", *list_blocks(), *RESNETS]
    assert list(tmp_path.iterdir()) == []


def test_every_command_is_of_a_kind_that_is_tried():
    assert OTHERS == []
