"""What is shown while a run goes on."""

import io

import numpy as np
from PIL import Image
from rich.console import Console

from train.config import Config
from train.data import folder
from train.metrics import EpochMetrics
from train.run_folder import RunFolder
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
