"""`python -m torch_ref speed`: what it takes, measures, writes and refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from torch_ref import __main__ as command
from torch_ref.report.docs import ROOT, write_speed
from torch_ref.speed import command as command_of_speed
from torch_ref.speed import measure
from torch_ref.speed.figures import COMPILED, OURS, WRITTEN, Figure, Rates, SpeedRun, from_json, to_json, update
from torch_ref.speed.measure import AXES
from torch_ref.speed.shown import growth_table, more_table, time_table


def figure(name="block/eca", work="forward", load=0.0, **changes):
    seconds = {"ours, 1 device": 0.4, "ours, 2 devices": 0.2, WRITTEN: 0.3, "channels_last": 0.1}
    first = {"ours, 1 device": 5.0, "ours, 2 devices": 6.0, COMPILED: 9.0}
    memory = {OURS: 3 * 2**20, WRITTEN: 8 * 2**20, "fused attention": 2**20}
    given = Figure(name, 10, (24, 24, 32), work, seconds, first, memory, 0.05, {}, load)
    return replace(given, **changes)


def run_of(*figures, **growth):
    return SpeedRun("cpu", "a CPU", {"jax": "1"}, 2, Rates(1e11, 1e10), list(figures), growth)


def test_a_block_from_end_to_end(tmp_path, capsys, monkeypatch):
    def no_compiler(_):
        raise RuntimeError("no C++ compiler found\nin many lines")

    monkeypatch.setattr(torch, "compile", no_compiler)
    threads = torch.get_num_threads()
    json_path, plot = tmp_path / "speed.json", tmp_path / "speed.png"
    options = ["--batch", "2", "--size", "4x4x5", "--repeats", "1", "--devices", "1", "--full"]
    assert command.main(["speed", "block/eca", *options, "--json", str(json_path), "--plot", str(plot)]) == 0
    assert torch.get_num_threads() == threads
    assert plot.read_bytes().startswith(b"\x89PNG")
    run = from_json(json_path.read_text())
    assert [figure.work for figure in run.figures] == ["forward", "forward + backward"]
    for each in run.figures:
        assert list(each.seconds) == ["ours, 1 device", WRITTEN, "channels_last"]
        assert min(each.seconds.values()) > 0
        assert each.least > 0
        assert set(each.memory) == {OURS, WRITTEN}
        assert each.notes == {COMPILED: "no C++ compiler found"}
    shown = capsys.readouterr().out
    assert "block/eca" in shown
    assert "torch.compile: no C++ compiler found" in shown


SMALL = ["--batch", "2", "--repeats", "1", "--devices", "1", "--size", "4x4x5"]


def test_a_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    measured, path = [], tmp_path / "speed.json"
    monkeypatch.setattr(command_of_speed, "start_run", run_of)
    stopped = {"block/eca"}

    def measured_or_stopped(subject, *_, **__):
        if subject.name in stopped:
            raise KeyboardInterrupt
        measured.append(subject.name)
        return [figure(subject.name, work, batch=2, size=(4, 4, 5)) for work in subject.works]

    monkeypatch.setattr(command_of_speed, "measure", measured_or_stopped)
    words = ["speed", "block/bam", "block/eca", "block/simam", *SMALL, "--json", str(path), "--resume"]
    with pytest.raises(KeyboardInterrupt):
        command.main(words)
    assert measured == ["block/bam"]
    stopped.clear()
    assert command.main(words) == 0
    assert measured == ["block/bam", "block/eca", "block/simam"]
    assert {each.name for each in from_json(path.read_text()).figures} == set(measured)
    run = from_json(path.read_text())
    marked = [replace(each, load=1.9) if each.name == "block/eca" else each for each in run.figures]
    path.write_text(to_json(replace(run, figures=marked)))
    assert command.main(words) == 0  # measures that one again
    assert measured[3:] == ["block/eca"]


def test_growth_goes_on_point_by_point(tmp_path, monkeypatch):
    measured, path = [], tmp_path / "speed.json"
    monkeypatch.setattr(command_of_speed, "start_run", run_of)

    def noted(subject, *_, **__):
        measured.append((subject.batch, subject.size))
        return [figure(subject.name, work, batch=subject.batch, size=subject.size) for work in subject.works]

    monkeypatch.setattr(command_of_speed, "measure", noted)
    words = ["speed", "block/eca", *SMALL, "--growth", "--json", str(path), "--resume"]
    assert command.main(words) == 0
    points = [point for points in AXES.values() for point in points]
    assert measured == [(2, (4, 4, 5)), *points]
    growth = from_json(path.read_text()).growth
    assert {axis: [(each.batch, each.size) for each in figures] for axis, figures in growth.items()} == AXES
    assert {each.work for figures in growth.values() for each in figures} == {"forward + backward"}
    assert command.main(words) == 0
    assert len(measured) == 1 + len(points)


def test_a_block_that_takes_no_such_map_is_noted_and_the_others_measured(tmp_path, capsys):
    path = tmp_path / "speed.json"
    assert command.main(["speed", "block/bat", "block/eca", *SMALL[:-1], "5x5x8", "--json", str(path)]) == 0
    figures = from_json(path.read_text()).figures
    assert [bool(each.seconds) for each in figures] == [False, False, True, True]
    shown = capsys.readouterr().out
    assert "- block/bat, batch 2, map 5x5x8, ours: x must have a height and a width that block_size=4 divides" in shown
    assert not figures[2].memory  # which takes longer than the times, as torch.compile does
    assert list(figures[2].seconds) == ["ours, 1 device", WRITTEN, "channels_last"]


def test_a_twin_that_would_keep_too_much_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "MOST_HELD", 1)
    assert command.main(["speed", "block/eca", *SMALL, "--full"]) == 0
    assert "as written: left out, for it would keep 0.0 GiB for its backward pass" in capsys.readouterr().out


def test_ratios_and_shares_are_of_our_fastest_layout_and_their_fastest_form():
    head, (line,) = time_table([figure(load=1.93)])
    shown = dict(zip(head, line, strict=True))
    assert (shown["ours, 1 device"], shown["ours, 2 devices"]) == ("400", "200")
    assert (shown["as written / ours"], shown["best / ours"], shown["load"]) == ("1.50", "0.50", "busy: load 1.9")
    head, (line,) = more_table([figure()])
    shown = dict(zip(head, line, strict=True))
    assert shown["images a second"] == "50.0 / 100"
    assert shown["% of the machine"] == "25.0 / 50.0"
    assert shown["memory, MiB (ours / as written / least)"] == "3.00 / 8.00 / 1.00"
    assert shown["first call, s"] == "5.00 / 9.00"


def test_growth_is_fitted_from_what_could_be_measured():
    def at(side, written):
        tokens = side * side
        seconds = {"ours, 2 devices": 1e-6 * tokens, **({WRITTEN: 1e-9 * tokens**2} if written else {})}
        memory = {OURS: 64.0 * tokens, **({WRITTEN: 4.0 * tokens**2} if written else {})}
        return figure(size=(side, side, 32), seconds=seconds, memory=memory)

    head, (line,) = growth_table(run_of(tokens=[at(12, True), at(24, True), at(48, False)]))
    shown = dict(zip(head, line, strict=True))
    assert shown["tokens: time"] == shown["tokens: memory"] == "1.00 / 2.00"
    assert shown["batch: time"] == "- / -"


def test_a_run_comes_back_from_json():
    run = run_of(figure(memory={OURS: None}), tokens=[figure()])
    assert from_json(to_json(run)) == run
    with pytest.raises(ValueError, match="text must be a speed run as JSON"):
        from_json(json.dumps({"figures": []}))


def test_an_update_keeps_the_figures_of_the_same_machine_alone():
    kept, new = run_of(figure(), figure("block/cbam")), run_of(figure(least=1.0))
    assert update(kept, new).figures == [figure("block/cbam"), figure(least=1.0)]
    assert update(replace(kept, versions={"jax": "0"}), new) == new


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "docs" / "speed", tmp_path / "docs" / "speed")
    shutil.copy(ROOT / "docs" / "speed.md", tmp_path / "docs")
    return tmp_path


def test_the_page_takes_new_figures_and_refuses_those_of_a_busy_machine(copy):
    before = (copy / "docs" / "speed.md").read_text()
    for run in (run_of(figure(load=1.9)), run_of(figure(), tokens=[figure(load=1.9)])):
        with pytest.raises(
            ValueError, match=r"--docs must have a machine without other work, got block/eca: busy: load 1\.9"
        ):
            write_speed(run, copy)
    assert (copy / "docs" / "speed.md").read_text() == before
    write_speed(run_of(figure("block/of this test")), copy)
    assert "| block/of this test | 10 | 24x24x32 | forward |" in (copy / "docs" / "speed.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["cbma"], r"NAME must be among block/additive, .*network/sensor, got cbma"),
        (["eca", "--devices", "64"], r"--devices must be at most \d+, the number of devices that JAX finds, got 64"),
        (["--devices", "0"], "must be a whole number >= 1, got '0'"),
        (["--batch", "many"], "must be a whole number >= 1, got 'many'"),
        (["--size", "24x24"], "must be height, width and channels such as 24x24x32, got '24x24'"),
        (["--size", "0x4x4"], "must be height, width and channels such as 24x24x32, got '0x4x4'"),
        (["eca", "--resume"], "--resume must come with --json PATH, got no path"),
        (["--json", "no/such/folder/speed.json"], "must be a file in an existing folder"),
    ],
)
def test_bad_options(options, message, capsys):
    try:
        status = command.main(["speed", *options])
    except SystemExit as error:  # argparse's own
        status = error.code
    assert status == 2
    assert re.search(message, capsys.readouterr().err)


def test_both_frameworks_must_use_the_same_kind_of_device(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert command.main(["speed", "eca"]) == 2
    assert (
        "JAX and PyTorch must use the same kind of device, got cpu and gpu; JAX_PLATFORMS=cpu"
        in capsys.readouterr().err
    )


def test_without_pytorch_one_line_names_the_extra(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-m", "torch_ref", "speed", "eca"]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: the reference needs PyTorch: pip install -e '.[torch]'\n"
