"""``python -m train report`` from its arguments to its page and its exit status."""

import dataclasses
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.__main__ import main
from train.report import command
from train.report.runs import Options, plan, read_report
from train.runs import read_config

from .conftest import cost


def report(archive, folder, *options):
    words = ["--data", f"npz:{archive}", "--rows", "cnn", "cbam", "--epochs", "1", "--batch-size", "6"]
    words += ["--protocols", "per_image", "--seeds", "0", "--runs", str(folder / "runs"), "--out", str(folder / "out")]
    return main(["report", *words, *options])


def names_of(folder):
    return [outcome.name for outcome in read_report(folder / "out" / "results.json").outcomes]


@pytest.fixture
def trainers(monkeypatch):
    """Replaces the training of both sides."""

    def replace(ours=None, pytorch=None):
        def fail(*_):
            raise AssertionError("nothing should be trained")

        kinds = {"ours": ours or fail, "pytorch": pytorch or fail}
        monkeypatch.setattr(command, "train_one", lambda run, _: kinds[run.key.side](run))

    return replace


@pytest.fixture(scope="module")
def finished(small_archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert report(small_archive, folder) == 0
    return folder


def test_every_run_is_done_once(finished):
    assert names_of(finished) == [
        f"per_image/{row}/{side}/seed-0" for row in ("cnn", "cbam") for side in ("ours", "pytorch")
    ]


def test_the_page_shows_what_the_folders_hold(finished):
    names = sorted(path.name for path in (finished / "out").iterdir())
    assert names == ["leaderboard.md", "leaderboard.png", "results.json", "results.md"]
    made = read_report(finished / "out" / "results.json")
    assert len(made.outcomes) == 4
    for outcome in made.outcomes:
        folder = finished / "runs" / outcome.protocol / outcome.row / outcome.side / "seed-0"
        metrics = json.loads((folder / "metrics.jsonl").read_text())
        assert outcome.test_errors == [metrics["test_error"]]
        assert outcome.maps == json.loads((folder / "localisation.json").read_text())["maps"]
        page = "leaderboard.md" if outcome.side == "ours" else "results.md"
        assert f"{metrics['test_error']:.3g}" in (finished / "out" / page).read_text()
    assert {outcome.row: outcome.parameters for outcome in made.outcomes} == {"cnn": 53_857, "cbam": 54_019}


def test_a_second_call_trains_nothing(finished, small_archive, trainers):
    """Neither with the results nor, where the call before was killed in between, with the folders alone."""
    kept = finished / "out" / "results.json"
    before = read_report(kept)
    trainers()
    assert report(small_archive, finished) == 0
    assert read_report(kept) == before
    kept.unlink()
    assert report(small_archive, finished) == 0
    assert read_report(kept) == before


def test_a_stopped_report_continues_and_failed_runs_are_named(finished, small_archive, tmp_path, capsys, trainers):
    asked = []

    def train_ours(run):
        asked.append(run.key.name)
        shutil.copytree(finished / "runs" / run.key.name, run.path)
        if len(asked) == 1:
            os.kill(os.getpid(), signal.SIGTERM)  # too late for this run
        return 0

    trainers(train_ours, lambda *_: 1)
    assert report(small_archive, tmp_path) == 143
    assert "- runs: 1\n" in (tmp_path / "out" / "leaderboard.md").read_text()
    assert "stopped; the same command continues" in capsys.readouterr().err
    assert report(small_archive, tmp_path) == 1
    assert asked == [f"per_image/{row}/ours/seed-0" for row in ("cnn", "cbam")]
    shown = capsys.readouterr().err
    assert "these runs failed: per_image/cnn/pytorch/seed-0, per_image/cbam/pytorch" in shown
    assert "- runs: 2\n" in (tmp_path / "out" / "leaderboard.md").read_text()


def test_results_in_the_out_folder_are_kept_and_added_to(finished, small_archive, tmp_path, trainers, capsys):
    """As on another machine, or where the run folders are gone."""
    shutil.copytree(finished / "out", tmp_path / "out")
    before, asked = read_report(tmp_path / "out" / "results.json"), []

    def train_ours(run):
        asked.append(run.key.name)
        shutil.copytree(finished / "runs/per_image/cnn/ours/seed-0", run.path)
        return 0

    trainers(train_ours, lambda *_: 1)
    assert report(small_archive, tmp_path, "--rows", "cnn", "--seeds", "0", "1") == 1
    assert asked == ["per_image/cnn/ours/seed-1"]
    made = read_report(tmp_path / "out" / "results.json")
    assert made.outcomes[:-1] == before.outcomes
    assert made.outcomes[-1].name == asked[0]
    assert "error: these runs failed: per_image/cnn/pytorch/seed-1\n" in capsys.readouterr().err


def test_pictures_are_drawn_of_the_blocks_that_have_runs(finished, small_archive, tmp_path, trainers, capsys):
    trainers()
    assert report(small_archive, finished, "--pictures", str(tmp_path / "blocks")) == 0
    (path,) = (tmp_path / "blocks").iterdir()  # and not of cnn
    assert path.name == "cbam.png"
    assert f"written: {path}" in capsys.readouterr().out.replace("\n", "")
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert 600 <= picture.width <= 1000
    assert path.stat().st_size <= 24_000


def test_no_train_makes_the_tables_of_the_kept_results(finished, tmp_path, capsys):
    shutil.copy(finished / "out" / "results.json", tmp_path)
    assert main(["report", "--no-train", "--out", str(tmp_path)]) == 0
    for page in ("results.md", "leaderboard.md"):
        assert (tmp_path / page).read_text() == (finished / "out" / page).read_text()
    assert read_report(tmp_path / "results.json") == read_report(finished / "out" / "results.json")
    assert f"written: {tmp_path / 'leaderboard.png'}" in capsys.readouterr().out


def test_costs_are_measured_of_rows_that_lack_them(finished, tmp_path, monkeypatch, capsys):
    """Also after a stop in between."""
    shutil.copy(finished / "out" / "results.json", tmp_path)
    asked = []

    def measure(row, *sizes):
        asked.append((row, *sizes))
        if len(asked) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return cost(row)

    monkeypatch.setattr(command, "measure", measure)
    words = ["report", "--no-train", "--costs", "--out", str(tmp_path)]
    assert main([*words, "--rows", "c*"]) == 143
    assert "stopped; the same command continues" in capsys.readouterr().err
    assert main([*words, "--rows", "cnn", "eca"]) == 0
    assert main([*words, "--rows", "c*"]) == main(words) == 0
    assert asked == [("cnn", 6, 20, 24), ("cbam", 6, 20, 24)]
    assert read_report(tmp_path / "results.json").costs == [cost("cnn"), cost("cbam")]
    assert (tmp_path / "leaderboard.md").read_text().count("| 92.81 | 39.0 | 88.0 |") == 2
    assert main(["report", "--no-train", "--costs", "--out", str(tmp_path), "--rows", "cbma"]) == 2
    assert "did you mean 'cbam'?" in capsys.readouterr().err


def test_later_runs_keep_the_costs(finished, small_archive, tmp_path, trainers):
    shutil.copytree(finished / "out", tmp_path / "out")
    file = tmp_path / "out" / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"costs": [dataclasses.asdict(cost("cnn"))]}))
    trainers()
    assert report(small_archive, tmp_path) == 0
    assert read_report(file).costs == [cost("cnn")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"options": {"epochs": 50}},
            "--out must have no results of other options or images, got FILE: epochs 50 then, 1 now",
        ),
        (
            {"images": {"images": 7}},
            "--out must have no results of other options or images, got FILE: images 7 then, 39 now",
        ),
    ],
)
def test_results_of_another_kind_are_refused(finished, small_archive, tmp_path, capsys, change, message):
    file = tmp_path / "out" / "results.json"
    file.parent.mkdir()
    values = json.loads((finished / "out" / "results.json").read_text())
    for name, value in change.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(values))
    assert report(small_archive, tmp_path, "--seeds", "1") == 2
    assert message.replace("FILE", str(file)) in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_our_runs_are_those_of_the_training_command(finished, small_archive):
    options = Options(data=f"npz:{small_archive}", epochs=1, batch_size=6, runs=str(finished / "runs"))
    run = plan(options)[0]
    assert read_config(run.path) == run.config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "npz:nowhere.npz"], "error: "),
        (["--rows", "resnet"], "error: --rows must be all, or rows of the tables or patterns of them, got 'resnet'"),
        (["--no-train"], "results.json must be readable JSON, got: "),
        (["--batch-size", "32"], "--batch-size must be at most the number of training images, 31, got 32"),
    ],
)
def test_bad_input(small_archive, tmp_path, capsys, options, message):
    assert report(small_archive, tmp_path, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(params=["begun", "finished"])
def begun(request, finished, tmp_path):
    """The folder of a run of which nothing is known but that it has begun, or all but its place in a report."""
    name = "per_image/cnn/ours/seed-0"
    shutil.copytree(finished / "runs" / name, tmp_path / "runs" / name)
    if request.param == "begun":
        (tmp_path / "runs" / name / "localisation.json").unlink()
    config = tmp_path / "runs" / name / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"run_dir": str(config.parent)}))
    return tmp_path


def test_a_run_with_other_images_is_bad_input(begun, capsys, other_source):
    np.savez(begun / "small.npz", images=other_source.records)
    assert report(begun / "small.npz", begun, "--rows", "cnn", "--twins") == 2
    assert "is not what the run in" in capsys.readouterr().err


def test_a_run_with_another_configuration_is_bad_input(begun, small_archive, capsys):
    assert report(small_archive, begun, "--epochs", "2", "--rows", "cnn", "--twins") == 2
    assert "holds a run with another configuration: epochs 1 then, 2 now" in capsys.readouterr().err


def test_a_run_that_has_begun_is_resumed(begun, finished, small_archive):
    options = "--rows", "cnn", "--twins"
    assert report(small_archive, begun, *options) == 0
    made, before = (read_report(folder / "out" / "results.json").outcomes[0] for folder in (begun, finished))
    assert made == dataclasses.replace(before, parameters=made.parameters)


def test_the_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", "--help"])
    assert stop.value.code == 0
    assert "--no-train" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["report", "--resnet"])
    assert stop.value.code == 2
    assert "python -m train report --help" in capsys.readouterr().err


def test_without_pytorch_the_extra_is_named(small_archive, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("twin", "torch_ref.networks.patch", "torch_ref.pairs"):
        monkeypatch.delitem(sys.modules, f"train.{name}" if name == "twin" else name, raising=False)
    monkeypatch.delattr("train.twin", raising=False)
    assert report(small_archive, tmp_path) == 2
    assert "pip install -e '.[torch]'" in capsys.readouterr().err
    assert not Path(tmp_path / "runs").exists()
