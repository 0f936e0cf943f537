"""``python -m train report`` from its arguments to its page and its exit status."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from train.report.command import TRAINERS, main
from train.report.outcomes import read_report
from train.report.plan import Options, plan
from train.runs import read_config


def report(archive, folder, *options, trainers=TRAINERS):
    words = ["--data", f"npz:{archive}", "--rows", "cnn", "cbam", "--epochs", "1", "--batch-size", "6"]
    words += ["--protocols", "per_image", "--seeds", "0", "--runs", str(folder / "runs"), "--out", str(folder / "out")]
    return main([*words, *options], trainers)


def log_of(folder):
    return [json.loads(line) for line in (folder / "runs" / "report.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(small_archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert report(small_archive, folder) == 0
    return folder


def test_every_run_is_done_once(finished):
    names = [line["run"] for line in log_of(finished)]
    assert names == [f"per_image/{row}/{side}/seed-0" for row in ("cnn", "cbam") for side in ("ours", "pytorch")]
    assert all(line["status"] == 0 and line["seconds"] > 0 for line in log_of(finished))


def test_the_page_shows_what_the_folders_hold(finished):
    assert sorted(path.name for path in (finished / "out").iterdir()) == ["results.json", "results.md", "results.png"]
    made = read_report(finished / "out" / "results.json")
    assert (made.planned, len(made.outcomes)) == (4, 4)
    for outcome in made.outcomes:
        folder = finished / "runs" / outcome.protocol / outcome.row / outcome.side / "seed-0"
        metrics = json.loads((folder / "metrics.jsonl").read_text())
        assert outcome.test_errors == [metrics["test_error"]]
        assert outcome.maps == json.loads((folder / "localisation.json").read_text())["maps"]
        assert f"{metrics['test_error']:.3g}" in (finished / "out" / "results.md").read_text()
    assert {outcome.row: outcome.parameters for outcome in made.outcomes} == {"cnn": 53_857, "cbam": 54_019}


def test_a_second_call_trains_nothing(finished, small_archive):
    before = log_of(finished)
    assert report(small_archive, finished, trainers={}) == 0
    assert log_of(finished) == before


def test_a_stopped_report_continues_and_failed_runs_are_named(finished, small_archive, tmp_path, capsys):
    shutil.copytree(finished / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "report.jsonl").write_text('{"run": "per_im')  # nothing is known to be done
    asked = []

    def train_ours(run, source, console):
        asked.append(run.name)
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)  # too late for this run
        return 0

    trainers = {"ours": train_ours, "pytorch": lambda *_: 1}
    assert report(small_archive, tmp_path, trainers=trainers) == 143
    assert not (tmp_path / "out").exists()
    assert report(small_archive, tmp_path, trainers=trainers) == 1
    assert asked == [f"per_image/{row}/ours/seed-0" for row in ("cnn", "cbam")]
    shown = capsys.readouterr().err
    assert "stopped; the same command continues" in shown
    assert "these runs failed, for the reasons above: per_image/cnn/pytorch/seed-0, per_image/cbam/pytorch" in shown
    page = (tmp_path / "out" / "results.md").read_text()
    assert "- runs: 2 of 4, in" in page
    assert "- failed: per_image/cnn/pytorch/seed-0, per_image/cbam/pytorch/seed-0\n" in page


def test_runs_that_another_report_holds_are_not_trained_again(finished, small_archive, tmp_path):
    """As on another machine, or where the folders are gone."""
    kept, asked = finished / "out" / "results.json", []
    known = ["--known", str(kept), "--seeds", "0", "1"]

    def fail(run, source, console):
        asked.append(run.name)
        return 1

    assert report(small_archive, tmp_path, *known, trainers={"ours": fail, "pytorch": fail}) == 1
    names = [f"per_image/{row}/{side}/seed-1" for row in ("cnn", "cbam") for side in ("ours", "pytorch")]
    assert asked == names
    made = read_report(tmp_path / "out" / "results.json")
    assert made.outcomes == read_report(kept).outcomes
    assert (made.planned, made.failed, made.options["known"]) == (8, names, ["results.json"])
    assert "--known" not in (tmp_path / "out" / "results.md").read_text()
    assert report(small_archive, tmp_path, *known, "--no-train", "--rows", "cbam", "--protocols", "per_image") == 1
    assert {run.row for run in read_report(tmp_path / "out" / "results.json").outcomes} == {"cbam"}


def test_a_run_s_own_folder_comes_before_another_report(finished, small_archive, tmp_path):
    values = json.loads((finished / "out" / "results.json").read_text())
    for run in values["outcomes"]:
        run["test_accuracy"] = 0.125
    (tmp_path / "other.json").write_text(json.dumps(values))
    known = ["--known", str(tmp_path / "other.json"), "--no-train", "--out", str(tmp_path / "out")]
    assert report(small_archive, finished, *known) == 0
    made = read_report(tmp_path / "out" / "results.json")
    assert len(made.outcomes) == 4
    assert all(run.test_accuracy != 0.125 for run in made.outcomes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"epochs": 50}}, "with the same options, got FILE: epochs 50 then, 1 now"),
        ({"images": {"images": 7}}, "on the same images, got: images 7 then, 39 now"),
        ({"outcomes": [{}]}, "expected the results.json of a report, got FILE: "),
        (None, "No such file or directory: 'FILE'"),
    ],
)
def test_a_report_of_another_kind_is_refused(finished, small_archive, tmp_path, capsys, change, message):
    file = tmp_path / "results.json"
    values = json.loads((finished / "out" / "results.json").read_text())
    for name, value in (change or {}).items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    if change is not None:
        file.write_text(json.dumps(values))
    assert report(small_archive, tmp_path, "--known", str(file)) == 2
    assert message.replace("FILE", str(file)) in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_our_runs_are_those_of_the_training_command(finished, small_archive, console):
    options = Options(data=f"npz:{small_archive}", epochs=1, batch_size=6, runs=str(finished / "runs"))
    run = plan(options)[0]
    assert read_config(run.path) == run.config
    assert TRAINERS["ours"](run, None, console) == 0  # resumes the finished run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "1", "1"], "error: --seeds must be at least one, none of them twice, got '1 1'"),
        (["--data", "npz:nowhere.npz"], "error: "),
        (["--rows", "resnet"], "error: --rows must be all or rows of the tables, got 'resnet'"),
        (["--no-train"], "without any; failed: none"),
        (["--known", "~no-such-user/results.json"], "No such file or directory: '~no-such-user/results.json'"),
        (["--renew"], "--renew must be the only option, as it reads no runs, got --data, "),
        (["--batch-size", "32"], "--batch-size must be at most the number of training images, 31, got 32"),
    ],
)
def test_bad_input(small_archive, tmp_path, capsys, options, message):
    assert report(small_archive, tmp_path, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_images_are_noticed_before_anything_is_trained(finished, tmp_path, capsys, other_source):
    np.savez(tmp_path / "small.npz", images=other_source.records)
    shutil.copytree(finished / "runs", tmp_path / "runs")
    for file in (tmp_path / "runs").rglob("config.json"):
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, "data": f"npz:{tmp_path / 'small.npz'}"}))
    assert report(tmp_path / "small.npz", tmp_path) == 2
    assert "is not what the run in" in capsys.readouterr().err
    assert log_of(tmp_path) == log_of(finished)


def test_another_configuration_in_the_folder_is_refused(finished, small_archive, capsys):
    before = log_of(finished)
    assert report(small_archive, finished, "--epochs", "2") == 2
    assert "holds a run with another configuration: epochs 1 then, 2 now" in capsys.readouterr().err
    assert log_of(finished) == before


def test_the_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "--article-epochs" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["--resnet"])
    assert stop.value.code == 2
    assert "usage: python -m train report" in capsys.readouterr().err


def test_without_pytorch_the_extra_is_named(small_archive, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert report(small_archive, tmp_path) == 2
    assert "pip install -e '.[torch]'" in capsys.readouterr().err
    assert not Path(tmp_path / "runs").exists()
