"""What is shown while a run goes on, and at its end."""

import io
import os

import numpy as np
import pytest
from rich.console import Console

from train.config import PatchConfig
from train.look.classes import draw_confusion, draw_gates
from train.look.grid import Caption, Column, draw
from train.plots import save, save_curves
from train.runs import EpochMetrics
from train.show import Bar, say
from train.text import printable

METRICS = EpochMetrics(1, 0.5, 0.5, 0.5, 0.5, 13.0)


def terminal():
    return Console(file=io.StringIO(), width=97, force_terminal=True)


def test_a_bar_is_drawn_on_a_terminal_alone(console):
    for where, drawn in ((terminal(), True), (console, False)):
        with Bar(7, where, done=2) as bar:
            bar.count("epoch 1/2", scores="train error 0.5")
            say(bar.console, "[/b] a note")
            bar.count("epoch 2/2", done=4)
        shown = where.file.getvalue()
        assert "[/b] a note\n" in shown
        assert [part in shown for part in ("epoch 2/2", "7/7")] == [drawn] * 2
        assert shown.endswith("\x1b[2K") == drawn  # gone


@pytest.mark.parametrize("name", [r"$\nothing$", "[/b]", os.fsdecode(b"caf\xe9"), "two\nlines"])
def test_any_name_can_be_shown_and_drawn(tmp_path, name):
    console = Console(file=io.StringIO(), width=197)
    say(console, f"run folder: {printable(tmp_path / name)}")
    told = console.file.getvalue().encode().decode()
    assert str(tmp_path / name).encode("ascii", "backslashreplace").decode().replace("\n", r"\n") in told
    draw_all(tmp_path, name)


@pytest.mark.filterwarnings("error")
def test_letters_that_pictures_lack_give_no_warning(tmp_path):
    draw_all(tmp_path, "\N{HIRAGANA LETTER A}")


def draw_all(folder, name):
    save_curves(folder / "curves.png", PatchConfig(data=f"npz:{name}"), [METRICS])
    shown = printable(name)
    save(draw_gates(name, np.array([[0.2, 0.7], [0.5, 0.1]]), ("0", shown)), folder / "gates.png")
    save(draw_confusion(name, np.eye(2, dtype=int), ("0", shown)), folder / "confusion.png")
    images = Column(shown, np.zeros((1, 16, 16, 3)), "image")
    save(draw(name, [Caption(shown)], [images, images], (2, 2)), folder / "attention.png")
