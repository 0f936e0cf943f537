"""The commands in the README are understood; what takes minutes is done by other tests, on smaller things."""

import dataclasses
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import flax_attn
import torch_ref.__main__
import train.__main__
from train.config import Config
from train.networks import build_network

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "README.md"
SIZE = 61, 67


def commands():
    """The lines of all shell blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines() if line.strip()]


COMMANDS = commands()


def photos(count):
    return np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), np.uint8)


def write_run(folder):
    config = Config(network="cnn")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    (folder / "data.json").write_text(json.dumps({"image_size": SIZE}))
    flax_attn.to_torch(build_network(config, *SIZE), folder / "model.safetensors")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Where the files lie that the commands name."""
    monkeypatch.chdir(tmp_path)
    np.savez("photos.npz", images=photos(53))
    windows = np.random.default_rng(0).standard_normal((53, 23, 3))
    np.savez("windows.npz", inputs=windows, labels=np.arange(53) % 4)
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "other.png", *(f"photos/{number}.webp" for number in range(53))):
        Image.fromarray(photos(1)[0]).save(name)
    for name in ("RUN", "runs/mine"):
        write_run(tmp_path / name)


def test_there_are_commands():
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] == "make"], ids=" ".join)
def test_make_knows_the_target(words):
    subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)


def started(words, monkeypatch):
    """Runs a command as far as its bad input would stop it; returns its exit status."""
    assert words[:2] == [".venv/bin/python", "-m"]
    module, *given = words[2:]
    for work in ("train.training.train", "train.compare.run", "train.report.command.run"):
        monkeypatch.setattr(work, lambda *arguments: 0)
    monkeypatch.setattr("train.data.opening.synthetic_images", lambda: photos(53))
    run = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr("train.training.go_on", lambda *arguments: (run, run, []))
    monkeypatch.setattr(torch_ref.__main__, "parity", lambda options: 0)
    return {"train": train.__main__, "torch_ref": torch_ref.__main__}[module].main(given)


INSTALLS = [words for words in COMMANDS if words[1:4] == ["-m", "pip", "install"]]


@pytest.mark.parametrize("words", INSTALLS, ids=" ".join)
def test_an_installation_names_extras_and_files_that_there_are(words):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[4:7] == ["-c", "constraints.txt", "-e"]
    assert (ROOT / words[5]).is_file()
    named = words[7].removeprefix(".[").removesuffix("]").split(",")
    assert set(named) <= set(extras)


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if words[0].endswith("python") and words not in INSTALLS], ids=" ".join
)
def test_python_understands_the_command(words, workplace, monkeypatch):
    if "--help" in words:
        with pytest.raises(SystemExit) as stop:
            started(words, monkeypatch)
        assert stop.value.code == 0
    else:
        assert started(words, monkeypatch) == 0


def test_every_command_is_of_a_kind_that_is_tried():
    assert [words for words in COMMANDS if words[0] not in ("make", ".venv/bin/python")] == []
