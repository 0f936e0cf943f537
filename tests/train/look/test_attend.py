"""``python -m train attend`` from its arguments to its picture."""

import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from train.__main__ import main
from train.look.observe import load_run, observe


@pytest.fixture
def photo(tmp_path, images):
    Image.fromarray(images(1)[0]).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def attend(*words):
    return main(["attend", *map(str, words)])


def test_it_says_what_the_network_thinks_and_where_the_picture_is(run, photo, tmp_path, images, capsys):
    Image.new("L", (50, 31), 7).save(tmp_path / "dark.jpg")
    assert attend(run, photo, tmp_path / "dark.jpg") == 0
    first, second, path = capsys.readouterr().out.splitlines()
    p = observe(load_run(run).network, (images(1) / 128 - 1).astype(np.float32)).p[0]
    assert first == f"{photo}: p = {p:.4f}"
    assert second.startswith(f"{tmp_path / 'dark.jpg'}: p = ")
    assert path == str(run / "attend.png")
    assert len(np.unique(np.asarray(Image.open(path).convert("L")))) > 50


def test_the_picture_goes_where_it_should_and_a_patch_too(run, photo, tmp_path, images, capsys):
    out = tmp_path / "mine.pdf"
    assert attend(run, photo, "--patch", 4, 12, "--out", out) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert last == str(out)
    x = (images(1) / 128 - 1).astype(np.float32)
    x[:, 4:20, 12:28] = 1
    assert first == f"{photo}: p = {observe(load_run(run).network, x).p[0]:.4f}"
    assert out.read_bytes().startswith(b"%PDF")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no file names that are no text")
def test_any_name_can_be_drawn_and_shown(run, photo, tmp_path, capsys):
    names = [tmp_path / os.fsdecode(b"caf\xe9.png"), tmp_path / r"$\nothing$.png", tmp_path / "[b].png"]
    for name in names:
        shutil.copy(photo, name)
    folder = run.rename(tmp_path / r"$\run$")
    assert attend(folder, *names) == 0
    shown = capsys.readouterr().out
    assert shown.encode().splitlines()[-1] == bytes(folder / "attend.png")
    for name in (r"caf\udce9.png", r"$\nothing$.png", "[b].png"):
        assert f"{tmp_path / name}: p = " in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "none.png"], "IMAGE must be a readable image, got none.png: no such file"),
        (["{tmp}/none", "{photo}"], "there must be a run in {tmp}/none, got no such folder"),
        (
            ["{run}", "{photo}", "--out", "{tmp}/a.txt"],
            "--out must end in .png, .jpg, .webp, .pdf or .svg, got {tmp}/a.txt",
        ),
        (
            ["{run}", "{photo}", "--out", "{tmp}/none/a.png"],
            "--out must be in a folder that exists, got {tmp}/none/a.png",
        ),
        (
            ["{run}", "{photo}", "--patch", "5", "0"],
            "--patch must have its corner between 0 0 and 4 12, got 5 0",
        ),
        (["{run}", *["{photo}"] * 65], "IMAGE must be at most 64 images, got 65"),
    ],
)
def test_bad_input_gets_one_line(run, photo, tmp_path, capsys, words, message):
    places = {"run": run, "photo": photo, "tmp": tmp_path}
    assert attend(*(word.format(**places) for word in words)) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith(f"error: {message.format(**places)}")
    assert len(shown.err.splitlines()) == 1


def test_missing_words_get_the_usage_line(capsys):
    with pytest.raises(SystemExit) as stop:
        attend("run")
    assert stop.value.code == 2
    usage = " ".join(capsys.readouterr().err.split())
    assert usage.startswith("usage: python -m train attend [-h] [--patch ROW COLUMN] [--out FILE] RUN IMAGE")
