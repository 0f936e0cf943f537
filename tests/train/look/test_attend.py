"""``python -m train attend`` from its arguments to its picture."""

import csv
import os
import shutil
import sys

import numpy as np
import pytest
from flax import nnx
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
    first, second, path, table = capsys.readouterr().out.splitlines()
    p = observe(nnx.split(load_run(run)[1]), (images(1) / 128 - 1).astype(np.float32)).answer[0]
    assert first == f"{photo}: p = {p:.4f}"
    assert second.startswith(f"{tmp_path / 'dark.jpg'}: p = ")
    assert (path, table) == (str(run / "attend.png"), str(run / "attend.csv"))
    assert len(np.unique(np.asarray(Image.open(path).convert("L")))) > 50


def test_the_picture_goes_where_it_should_and_a_patch_too(run, photo, tmp_path, images, capsys):
    out = tmp_path / "mine.pdf"
    assert attend(run, photo, "--patch", 4, 12, "--out", out) == 0
    first, last, _ = capsys.readouterr().out.splitlines()
    assert last == str(out)
    x = (images(1) / 128 - 1).astype(np.float32)
    x[:, 4:20, 12:28] = 1
    assert first == f"{photo}: p = {observe(nnx.split(load_run(run)[1]), x).answer[0]:.4f}"
    assert out.read_bytes().startswith(b"%PDF")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no file names that are no text")
def test_any_name_can_be_drawn_and_shown(run, photo, tmp_path, capsys):
    names = [tmp_path / os.fsdecode(b"caf\xe9.png"), tmp_path / r"$\nothing$.png", tmp_path / "[b].png"]
    for name in names:
        shutil.copy(photo, name)
    folder = run.rename(tmp_path / r"$\run$")
    assert attend(folder, *names) == 0
    shown = capsys.readouterr().out
    assert shown.encode().splitlines()[-2] == bytes(folder / "attend.png")
    for name in (r"caf\udce9.png", r"$\nothing$.png", "[b].png"):
        assert f"{tmp_path / name}: p = " in shown


def test_what_cannot_be_read_is_named_and_left_out_and_folders_are_taken(run, tmp_path, images, capsys):
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good / "more", bad):
        folder.mkdir(parents=True)
    for name in ("photo10.png", "photo2.png", "more/b.png"):
        Image.fromarray(images(1)[0]).save(good / name)
    (good / "text.txt").write_text("no image")
    whole = (good / "photo2.png").read_bytes()
    (bad / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert attend(run, bad / "cut.png", good, bad / "none.png") == 0
    shown = capsys.readouterr()
    with open(run / "attend.csv", newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["image", "p"]
    assert [name for name, _ in rows] == [str(good / name) for name in ("more/b.png", "photo2.png", "photo10.png")]
    assert [f"{name}: p = {p}" for name, p in rows] == shown.out.splitlines()[:3]
    assert shown.err.startswith(f"left out: {bad / 'cut.png'}: ")
    assert f"{good / 'text.txt'}: not an image of a known format" in shown.err
    assert shown.err.endswith(f"{bad / 'none.png'}: no such file\n")


def test_many_images_take_several_pages(run, photo, capsys):
    assert attend(run, *[photo] * 13) == 0
    *lines, first, second, table = capsys.readouterr().out.splitlines()
    assert (len(lines), table) == (13, str(run / "attend.csv"))
    assert [first, second] == [str(run / "attend-1.png"), str(run / "attend-2.png")]
    heights = [Image.open(page).height for page in (first, second)]
    assert heights[0] > 5 * heights[1] > 0
    assert not (run / "attend.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "none.png"], "IMAGE must be a readable image, got none.png: no such file"),
        (["{tmp}/none", "{photo}"], "there must be a run in {tmp}/none, got no such folder"),
        (["{run}", "{tmp}/empty"], "IMAGE must be a readable image, got {tmp}/empty: an empty folder"),
        (["{photo}", "{photo}"], "there must be a run in {photo}, got no such folder"),
        (["{run}", "{photo}", "--out", "{tmp}/a.txt"], "Format 'txt' is not supported (supported formats: "),
        (["{run}", "{photo}", "--out", "{tmp}/none/a.png"], "[Errno 2] No such file or directory: '{tmp}/none/a.png'"),
        (["{run}", "{photo}", "--out", "{tmp}/folder.png"], "[Errno 21] Is a directory: '{tmp}/folder.png'"),
        (
            ["{run}", "{photo}", "--patch", "5", "0"],
            "--patch must have its corner between 0 0 and 4 12, got 5 0",
        ),
    ],
)
def test_bad_input_gets_one_line(run, photo, tmp_path, capsys, words, message):
    places = {"run": run, "photo": photo, "tmp": tmp_path}
    for name in ("empty", "folder.png"):
        (tmp_path / name).mkdir()
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
