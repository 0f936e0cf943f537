"""What is shown while a run goes on."""

import io
import os
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from train import __main__ as command
from train.config import Config
from train.data import folder
from train.look import gates, windows
from train.look.picture import Caption, draw
from train.metrics import EpochMetrics
from train.plots import save_curves
from train.runs import RunFolder
from train.show import summary
from train.training import open_data


def shown(monkeypatch, photos, **options):
    console = Console(file=io.StringIO(), width=97, **options)
    monkeypatch.setattr("train.training.Console", lambda: console)
    assert len(open_data(Config(data=f"folder:{photos}")).records) == 7
    return console.file.getvalue()


def test_a_folder_is_looked_through_with_a_bar_on_a_terminal_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "CHUNK", 3)
    for number in range(7):
        Image.fromarray(np.full((17, 19, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    assert shown(monkeypatch, tmp_path) == ""
    drawn = shown(monkeypatch, tmp_path, force_terminal=True)
    assert [part in drawn for part in ("looking through the files", "0/7", "3/7", "6/7", "7/7")] == [True] * 5
    assert drawn.endswith("\x1b[2K")  # gone


def test_a_run_of_days_tells_them(tmp_path):
    console = Console(file=io.StringIO(), width=97)
    seconds = ((3 * 24 + 5) * 60 + 7) * 60 + 11.9
    console.print(summary([EpochMetrics(1, 0.5, 0.5, 0.5, 0.5, 13.0)], RunFolder(tmp_path), seconds))
    assert "3 days, 5:07:11" in console.file.getvalue()


@pytest.mark.parametrize("name", [r"$\nothing$", "[/b]", os.fsdecode(b"caf\xe9"), "two\nlines"])
def test_any_name_can_be_shown_and_drawn(tmp_path, name):
    console, metrics = Console(file=io.StringIO(), width=197), EpochMetrics(1, 0.5, 0.5, 0.5, 0.5, 13.0)
    console.print(summary([metrics], RunFolder(tmp_path / name), 1.0))
    told = console.file.getvalue().encode().decode()
    assert str(tmp_path / name).encode("ascii", "backslashreplace").decode().replace("\n", r"\n") in told
    draw_all(tmp_path, name)


@pytest.mark.filterwarnings("error")
def test_letters_that_pictures_lack_are_no_reason_to_warn(tmp_path):
    draw_all(tmp_path, "\N{HIRAGANA LETTER A}")


def draw_all(folder, name):
    metrics = EpochMetrics(1, 0.5, 0.5, 0.5, 0.5, 13.0)
    save_curves(folder / "curves.png", Config(data=f"npz:{name}"), [metrics])
    gates.draw(folder / "gates.png", name, np.array([[0.2, 0.7], [0.5, 0.1]]), ("0", "1"))
    row = windows.Row(np.zeros((5, 2)), [np.ones((5, 2)), np.zeros((3, 2))], r"class $\nothing$", False)
    windows.draw(folder / "windows.png", name, [row])
    draw(folder / "attention.png", name, np.zeros((1, 16, 16, 3)), [Caption(name)], [])


def test_a_terminal_without_a_letter_shows_an_escape(monkeypatch):
    """And does not end the run that prints it."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    monkeypatch.setattr(command, "main", lambda: print("caf\xe9") or 0)
    with pytest.raises(SystemExit):
        command.run_and_leave()
    sys.stdout.flush()
    assert written.getvalue() == b"caf\\xe9\n"
