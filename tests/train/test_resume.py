"""A run that is stopped, killed or damaged goes on to the bit as if nothing had happened, or says why it cannot."""

import dataclasses
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.errors import JaxRuntimeError

from train import checkpoint, training
from train.__main__ import main
from train.checkpoints import problems_of, steps_in
from train.config import Config
from train.data import Source
from train.devices import Layout
from train.loop import NonFiniteError, Run
from train.machine import compare_machine, instructions
from train.runs import RunFolder, read_config, write_whole
from train.show import ProgressBar
from train.step import train_step

from .conftest import HEEDING, results, wait_for

ROOT = Path(__file__).parents[2]
STEPS = 12  # three epochs of four


def command(folder, archive, *more):
    options = ["--data", f"npz:{archive}", "--batch-size", "8", "--epochs", "3", "--save-steps", "3"]
    return [*options, "--network", "multi_head", "--run-dir", str(folder), *more]  # it has dropout


def resume(folder, *more):
    return main(["--resume", str(folder), *more])


def checkpoint_of(folder, step):
    return folder / "checkpoints" / str(step)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, archive):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(command(folder, archive)) == 0
    return folder


@pytest.fixture
def stopped(tmp_path, whole, archive, monkeypatch):
    """A run that was told to stop in the middle of its second epoch."""
    stop_at(monkeypatch, 6)
    assert main(command(tmp_path / "run", archive)) == 128 + signal.SIGTERM
    monkeypatch.undo()
    return tmp_path / "run"


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    add_step = RunFolder.add_step

    def add_and_signal(folder, at, error):
        add_step(folder, at, error)
        if at == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(RunFolder, "add_step", add_and_signal)


def test_checkpoints_are_the_last_and_the_best(whole):
    errors = {4 * line["epoch"]: line["test_error"] for line in results(whole)[0]}
    assert steps_in(whole / "checkpoints") == sorted({8, 11, 12, min(errors, key=errors.get)})
    assert all(problems_of(checkpoint_of(whole, step)) == [] for step in steps_in(whole / "checkpoints"))


def test_a_run_that_was_told_to_stop_saves_at_once_and_goes_on_to_the_bit(stopped, whole, capsys):
    assert steps_in(stopped / "checkpoints")[-1] == 6
    assert not (stopped / "model.safetensors").exists()
    train_step.clear_cache()
    assert resume(stopped) == 0
    assert "goes on after step 6" in capsys.readouterr().out
    assert train_step._cache_size() == 1
    assert results(stopped) == results(whole)


@pytest.fixture
def heeding_ctrl_c():
    """As in a terminal; what a shell starts in the background ignores it, and so does a run there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_it_says_how_to_go_on(tmp_path, archive, monkeypatch, capsys):
    stop_at(monkeypatch, 1, signal.SIGINT)
    assert main(command(tmp_path / "run", archive)) == 130
    told = capsys.readouterr().err.splitlines()
    assert told[-2].startswith("stopped after step 1; of the checkpoints the last good one is ")
    assert told[-1] == f"to go on: python -m train --resume {tmp_path / 'run'}"


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_stop_at_the_end_of_an_epoch_does_not_wait_for_its_test(epochs, tmp_path, archive, whole, monkeypatch):
    stop_at(monkeypatch, 4 * epochs)
    assert main(command(tmp_path / "run", archive)) == 128 + signal.SIGTERM
    monkeypatch.undo()
    run = tmp_path / "run"
    place = json.loads(next(checkpoint_of(run, 4 * epochs).glob("place/metadata")).read_text())
    assert (place["step"], place["epochs"], place["tally"][0]) == (4 * epochs, epochs - 1, 32)
    assert resume(run) == 0
    assert results(run) == results(whole)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[epochs - 1]["images_per_second"] == place["speed"] > 0
    assert checkpoint_names(run) == checkpoint_names(whole)
    place = json.loads(next(checkpoint_of(run, STEPS).glob("place/metadata")).read_text())
    assert (place["step"], place["epochs"]) == (STEPS, 3)


def checkpoint_names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_stop_within_a_test_leaves_after_the_batch(tmp_path, archive, monkeypatch):
    options = ["--batch-size", "3", "--epochs", "1", "--network", "cnn"]
    assert main(command(tmp_path / "whole", archive, *options)) == 0
    judged, batch = [], ProgressBar.batch

    def stop_in_the_test(bar, split, tally):
        batch(bar, split, tally)
        if split == "test":
            judged.append(tally.state[0])
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ProgressBar, "batch", stop_in_the_test)
    assert main(command(tmp_path / "run", archive, *options)) == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert judged == [3]  # of 8
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert resume(tmp_path / "run") == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_a_checkpoint_is_there_until_that_which_replaces_it_is(tmp_path, monkeypatch):
    save_some(tmp_path, (4, None))
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    monkeypatch.setattr(checkpoints._manager, "save", lambda *_, **__: 1 / 0)
    with pytest.raises(checkpoint.SaveError):
        checkpoints.save({"w": jnp.zeros(3)}, checkpoint.Place(4, 1), 0.5)
    checkpoints.close()
    assert steps_in(tmp_path) == []
    checkpoint.take_back(tmp_path)
    assert steps_in(tmp_path) == [4]
    assert problems_of(tmp_path / "4") == []
    save_some(tmp_path, (4, 0.5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4"]
    assert (tmp_path / "4" / "metrics").is_dir()


def test_a_run_without_a_checkpoint_begins_anew(stopped, whole):
    shutil.rmtree(stopped / "checkpoints")
    with (stopped / "steps.jsonl").open("a") as file:
        file.write('{"step": 7, "er')  # cut off by a kill
    assert resume(stopped) == 0
    assert results(stopped) == results(whole)


def test_a_finished_run_that_is_resumed_only_fills_its_folder(whole, tmp_path):
    again = shutil.copytree(whole, tmp_path / "moved")
    (again / "attention.png").unlink()
    (again / "model.safetensors").unlink()
    assert resume(again) == 0
    assert results(again) == results(whole)
    assert (again / "attention.png").exists()


@pytest.mark.parametrize("part", ["train_epochs", "save_curves"])
def test_a_stop_leaves_the_rest_of_the_folder_to_a_resume(part, whole, tmp_path, monkeypatch, capsys):
    run, call = shutil.copytree(whole, tmp_path / "moved"), getattr(training, part)
    (run / "attention.png").unlink()

    def call_and_stop(*arguments):
        call(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(training, part, call_and_stop)
        assert resume(run) == 128 + signal.SIGTERM
    assert f"stopped after step {STEPS}; of the checkpoints " in capsys.readouterr().err
    assert not (run / "attention.png").exists()
    assert resume(run) == 0
    assert results(run) == results(whole)
    assert (run / "attention.png").exists()


def every_file(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_a_flipped_byte_is_found_in_any_file(whole, tmp_path):
    damaged = shutil.copytree(checkpoint_of(whole, STEPS), tmp_path / "12")
    names = [name for name in every_file(damaged) if name.name != checkpoint.DONE]
    assert len(names) > 8
    for name in names:
        content = (damaged / name).read_bytes()
        middle = len(content) // 2
        (damaged / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        assert problems_of(damaged), name
        (damaged / name).write_bytes(content)
        assert problems_of(damaged) == []


def test_a_missing_file_is_named(whole, tmp_path):
    damaged = shutil.copytree(checkpoint_of(whole, STEPS), tmp_path / "12")
    for name in [name for name in every_file(damaged) if name.name != checkpoint.DONE]:
        (damaged / name).rename(tmp_path / "away")
        assert [problem.split(" is ")[0] for problem in problems_of(damaged)] == [name.as_posix()]
        (tmp_path / "away").rename(damaged / name)


def flip_a_byte(folder, step):
    (name,) = [name for name in every_file(checkpoint_of(folder, step)) if name.match("place/metadata")]
    path = checkpoint_of(folder, step) / name
    path.write_bytes(path.read_bytes().replace(b'"step"', b'"stop"'))


def test_a_damaged_checkpoint_is_refused_and_nothing_is_changed(stopped, capsys):
    flip_a_byte(stopped, 6)
    before = {path: (stopped / path).read_bytes() for path in every_file(stopped)}
    assert resume(stopped) == 2
    told = capsys.readouterr().err
    assert f"error: checkpoint {checkpoint_of(stopped, 6)} is damaged: place/metadata has changed" in told
    assert f"with --resume-older the run would go on from {checkpoint_of(stopped, 4)}" in told
    assert {path: (stopped / path).read_bytes() for path in every_file(stopped)} == before


def test_the_one_before_is_taken_when_the_user_agrees(stopped, whole, capsys):
    flip_a_byte(stopped, 6)
    assert resume(stopped, "--resume-older") == 0
    assert f"is damaged and was set aside as {stopped / 'checkpoints-damaged' / '6'}" in capsys.readouterr().out
    assert results(stopped) == results(whole)


def test_what_a_damaged_one_replaced_does_not_come_back_later(stopped, whole, monkeypatch):
    # Killed between two moments: the new checkpoint has its name, the old one of the same step is not deleted yet.
    shutil.copytree(checkpoint_of(stopped, 6), stopped / "checkpoints" / checkpoint.DELETED / "6")
    flip_a_byte(stopped, 6)
    with monkeypatch.context() as patch:
        stop_at(patch, 5)  # goes on from 4, and its logs are cut there
        assert resume(stopped, "--resume-older") == 128 + signal.SIGTERM
    assert resume(stopped) == 0
    assert results(stopped) == results(whole)


def test_another_configuration_is_refused_key_by_key(stopped, capsys):
    assert resume(stopped, "--network", "cnn", "--learning-rate", "0.1") == 2
    told = capsys.readouterr().err
    assert (
        "another configuration: --network is multi_head there, got cnn; --learning-rate is 0.003 there, got 0.1" in told
    )
    assert resume(stopped, "--run-dir", "elsewhere") == 2
    assert "got elsewhere" in capsys.readouterr().err


def test_a_folder_of_an_older_version_goes_on_to_the_bit(stopped, whole):
    config = json.loads((stopped / "config.json").read_text())
    (stopped / "config.json").write_text(json.dumps({n: config[n] for n in config.keys() - {"task", "tensorboard"}}))
    for name in ("machine.json", ".lock"):
        (stopped / name).unlink()
    (metadata,) = checkpoint_of(stopped, 6).glob("place/metadata")
    place = json.loads(metadata.read_text())
    del place["speed"]
    metadata.write_text(json.dumps(place))
    digests = checkpoint._digests(checkpoint_of(stopped, 6))
    (checkpoint_of(stopped, 6) / checkpoint.DIGESTS).write_text(json.dumps(digests))
    assert resume(stopped) == 0
    assert results(stopped) == results(whole)


def test_a_run_that_goes_on_elsewhere_says_so(whole, tmp_path, capsys):
    again = shutil.copytree(whole, tmp_path / "moved")
    began, on_cpu = json.loads((again / "machine.json").read_text()), jax.default_backend() == "cpu"
    assert began == {
        "devices": Layout(8).devices,
        "kind": jax.devices()[0].device_kind,
        **({"processor": platform.machine(), "instructions": instructions()} if on_cpu else {}),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")},
    }
    told = []
    for change in ({}, {"devices": 3, "flax": "0.0.1"}):
        (again / "machine.json").write_text(json.dumps(began | change))
        assert resume(again) == 0
        told.append("not to the bit" in capsys.readouterr().out)
    assert told == [False, True]
    assert compare_machine(again, 2)[0].endswith(f": devices 3 then, 2 now; flax 0.0.1 then, {began['flax']} now")
    (again / "machine.json").unlink()  # a run from before there was one
    assert compare_machine(again, 2) == []


def test_processors_differ_in_their_instructions(tmp_path):
    about = tmp_path / "cpuinfo"
    about.write_text("processor\t: 0\nmodel name\t: A\nflags\t\t: sse2 fma avx2 avx\n\nprocessor\t: 1\nflags\t: no\n")
    assert instructions(about) == "avx avx2 fma"
    about.write_text("processor\t: 0\nFeatures\t: fp asimd sve\n")  # Arm
    assert instructions(about) == "asimd sve"
    about.write_text("")
    assert instructions(about) == instructions(tmp_path / "missing") == ""


@pytest.fixture
def ended(whole, tmp_path):
    """A copy of a run that has ended."""
    return shutil.copytree(whole, tmp_path / "ended")


def test_a_broken_file_stops_a_resume_before_anything_is_changed(ended, capsys):
    (ended / "machine.json").write_text("[")
    before = {path: path.read_bytes() for path in ended.rglob("*") if path.is_file()}
    assert resume(ended, "--keep", "1") == 2
    assert f"{ended / 'machine.json'} must be readable JSON" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in ended.rglob("*") if path.is_file()} == before
    folder = RunFolder(ended)
    folder.hold()  # nobody holds it any more
    folder.close()


@pytest.mark.parametrize("line", ["7", "\xff", "[1]", '{"other": 1}'])
@pytest.mark.parametrize("log", ["steps.jsonl", "metrics.jsonl"])
def test_a_log_that_is_none_is_named(log, line, ended, capsys):
    (ended / log).write_bytes(line.encode("latin-1") + b"\n")
    assert resume(ended) == 2
    assert re.match(rf"error: {re.escape(str(ended / log))} must (have at least|hold)", capsys.readouterr().err)


@pytest.mark.parametrize("text", ["[]", "null", "7", "{"])
def test_digests_that_are_none(text, ended, capsys):
    (checkpoint_of(ended, 12) / checkpoint.DIGESTS).write_text(text)
    assert resume(ended) == 2
    assert "digests.json is missing or unreadable" in capsys.readouterr().err


def test_what_changes_no_number_may_change(stopped, whole):
    began = read_config(stopped)
    assert resume(stopped, "--keep", "1", "--save-steps", "0", "--workers", "0") == 0
    assert results(stopped) == results(whole)
    assert len(steps_in(stopped / "checkpoints")) <= 2
    # The next time it is resumed, these are what it has.
    assert read_config(stopped) == dataclasses.replace(began, keep=1, save_steps=0, workers=0)


def test_a_folder_is_free_when_the_process_that_held_it_was_killed(stopped):
    hold = "file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(600)"
    words = [sys.executable, "-c", f"import fcntl, sys, time; {hold}", str(stopped / ".lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(ValueError, match="in which no other process trains"):
            RunFolder(stopped).hold()
        holder.kill()
    for _ in range(2):  # and so it is when the one that held it lets go
        folder = RunFolder(stopped)
        folder.hold()
        folder.close()


def two_that_begin(folder):
    return Config(run_dir=str(folder)), Source("a", np.zeros((5, 16, 17, 3), np.uint8))


def test_a_folder_is_made_by_one_process_alone(tmp_path, monkeypatch):
    config, source = two_that_begin(tmp_path / "run")
    refused = []

    def another_begins(path, text):
        if path.name == "config.json":  # the last file: the folder looks as if no run had begun
            with pytest.raises(ValueError, match="in which no other process trains") as caught:
                RunFolder.create(config, source)
            refused.append(caught)
        write_whole(path, text)

    monkeypatch.setattr("train.runs.write_whole", another_begins)
    RunFolder.create(config, source).close()
    assert len(refused) == 1


def test_a_folder_that_was_filled_meanwhile_is_taken(tmp_path, monkeypatch):
    config, source = two_that_begin(tmp_path / "run")
    hold = RunFolder.hold

    def hold_late(folder):
        (folder.path / "config.json").write_text("{}")
        hold(folder)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "hold", hold_late)
        with pytest.raises(ValueError, match="must be new or an empty folder"):
            RunFolder.create(config, source)
    (tmp_path / "run" / "config.json").unlink()
    RunFolder.create(config, source).close()  # the one that was refused has let go


def test_a_resume_that_fails_lets_go_of_the_folder(stopped):
    steps = (stopped / "steps.jsonl").read_text()
    (stopped / "steps.jsonl").write_text("")
    assert resume(stopped) == 2
    (stopped / "steps.jsonl").write_text(steps)
    RunFolder(stopped).hold()


def test_what_cannot_be_resumed(tmp_path, stopped, capsys):
    assert resume(tmp_path / "nothing") == 2
    assert capsys.readouterr().err == f"error: there must be a run in {tmp_path / 'nothing'}, got no such folder\n"
    (stopped / "config.json").write_text('{"colour": 1}')
    assert resume(stopped) == 2
    assert "must hold options of this version, got colour" in capsys.readouterr().err
    (stopped / "config.json").write_text("{")
    assert resume(stopped) == 2
    assert "config.json must be readable JSON" in capsys.readouterr().err


def test_data_may_lie_elsewhere(stopped, archive, whole, tmp_path):
    """On another machine, most of all."""
    moved = f"npz:{shutil.copy(archive, tmp_path / 'moved.npz')}"
    assert resume(stopped, "--data", moved) == 0
    assert results(stopped) == results(whole)
    assert read_config(stopped).data == moved


def test_other_images_are_refused(stopped, archive, tmp_path, capsys):
    config = (stopped / "config.json").read_text()
    np.savez(tmp_path / "other.npz", images=np.load(archive)["images"][:39])
    assert resume(stopped, "--data", f"npz:{tmp_path / 'other.npz'}") == 2
    assert (stopped / "config.json").read_text() == config
    told = capsys.readouterr().err
    assert "images 40 then, 39 now; train [0, 32] then, [0, 31] now; test [32, 40] then, [31, 39] now; digest " in told


def test_a_log_that_lost_lines_is_refused(stopped, capsys):
    (stopped / "steps.jsonl").write_text("")
    config = (stopped / "config.json").read_text()
    assert resume(stopped, "--keep", "7") == 2
    assert "steps.jsonl must have at least 6 lines, got 0" in capsys.readouterr().err
    assert (stopped / "config.json").read_text() == config


def test_checkpoints_come_after_the_lines_that_they_count_on(tmp_path, archive, monkeypatch):
    on_disk, saved, fsync, save = {}, [], os.fsync, checkpoint.Checkpoints.save

    def note_and_sync(number):
        on_disk[os.fstat(number).st_ino] = os.fstat(number).st_size
        fsync(number)

    def check_and_save(*arguments):
        logs = [path.stat() for path in (tmp_path / "run").glob("*.jsonl")]
        saved.append([on_disk.get(log.st_ino) == log.st_size for log in logs])
        save(*arguments)

    monkeypatch.setattr(os, "fsync", note_and_sync)
    monkeypatch.setattr(checkpoint.Checkpoints, "save", check_and_save)
    assert main(command(tmp_path / "run", archive, "--epochs", "2")) == 0
    assert saved == [[True], [True, True], [True, True], [True, True]]


def test_a_file_gets_its_name_when_it_is_on_the_disk(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: calls.append(os.fstat(number)) or fsync(number))
    monkeypatch.setattr(os, "replace", lambda *paths: calls.append(paths) or replace(*paths))
    write_whole(tmp_path / "a.txt", "seven\n")
    file, _, folder = calls
    assert (file.st_ino, file.st_size) == ((tmp_path / "a.txt").stat().st_ino, 6)
    assert folder.st_ino == tmp_path.stat().st_ino


def test_a_folder_of_a_run_that_was_killed_before_it_began_is_free(tmp_path, archive):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.unfinished").write_text("{")
    assert main(command(tmp_path / "run", archive, "--epochs", "1")) == 0


def test_a_taken_folder_says_how_to_go_on(stopped, archive, capsys):
    assert main(command(stopped, archive)) == 2
    assert f"to go on with the run in it: --resume {stopped}" in capsys.readouterr().err


def test_resume_older_needs_a_run(capsys):
    assert main(["--resume-older"]) == 2
    assert capsys.readouterr().err == "error: --resume-older belongs to --resume, got no --resume\n"


def test_a_full_disk_is_told_and_the_last_good_checkpoint_kept(tmp_path, archive, whole, monkeypatch, capsys):
    usage, calls = shutil.disk_usage, []

    def full_from_the_third_on(folder):
        calls.append(folder)
        return usage(folder)._replace(free=1000 if len(calls) > 2 else 1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", full_from_the_third_on)
    assert main(command(tmp_path / "run", archive)) == 0
    told = "".join(capsys.readouterr().out.split("\n"))
    assert "a checkpoint could not be written (the disk is full: " in told
    assert f"the last good one is {checkpoint_of(tmp_path / 'run', 4)}" in told
    assert steps_in(tmp_path / "run" / "checkpoints") == [3, 4]
    assert results(tmp_path / "run") == results(whole)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit for the size of files")
def test_a_disk_that_is_full_in_the_middle_of_a_save_is_told_in_one_line(stopped, whole):
    """Files that may grow no further are written as on a full disk: half of each is there."""
    limited = ["sh", "-c", 'ulimit -f 195; exec "$@"', "sh"]  # 100 or 200 kB, by the shell
    shell = subprocess.run(
        [*limited, sys.executable, "-m", "train", "--resume", str(stopped), "--save-steps", "1"],
        cwd=ROOT,
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},  # which writes files, too
        capture_output=True,
        text=True,
    )
    good = checkpoint_of(stopped, 6)
    assert shell.returncode == 1
    assert shell.stdout.count("a checkpoint could not be written (") == STEPS - 6
    assert shell.stdout.count(f"; the last good one is {good}") == STEPS - 6
    # The weights at the end do not fit, either.
    (told,) = shell.stderr.splitlines()
    assert told.startswith("error: ")
    assert told.endswith(f"; of the checkpoints the last good one is {good}")
    assert steps_in(stopped / "checkpoints")[-1] == 6
    assert resume(stopped) == 0
    assert results(stopped) == results(whole)


def test_a_log_that_cannot_be_written_ends_the_run_with_one_line(tmp_path, archive, monkeypatch, capsys):
    def full(folder, metrics):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "add_epoch", full)
    assert main(command(tmp_path / "run", archive)) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: [Errno 28] No space left on device; of the checkpoints ")
    assert told.endswith(f"the last good one is {checkpoint_of(tmp_path / 'run', 3)}\n")


def test_a_log_of_steps_on_a_full_disk_does_so_too(tmp_path, archive, monkeypatch, capsys):
    create = RunFolder.create.__func__

    def create_on_full_disk(cls, config, source):
        folder = create(cls, config, source)
        (folder.path / "steps.jsonl").symlink_to("/dev/full")
        return folder

    monkeypatch.setattr(RunFolder, "create", classmethod(create_on_full_disk))
    assert main(command(tmp_path / "run", archive)) == 1
    assert (
        capsys.readouterr().err == "error: [Errno 28] No space left on device; of the checkpoints there is none yet\n"
    )
    folder = RunFolder(tmp_path / "run")
    folder.hold()  # nobody holds it any more
    folder.close()


@pytest.mark.parametrize("error", [JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocator"), MemoryError()])
def test_memory_that_is_full_is_told_in_one_line(error, tmp_path, archive, monkeypatch, capsys):
    told = str(error).partition("\n")[0] or "MemoryError"

    def full(*arguments, **options):
        raise error

    monkeypatch.setattr("train.loop.train_step", full)
    assert main(command(tmp_path / "run", archive)) == 1
    assert capsys.readouterr().err == f"error: {told}; of the checkpoints there is none yet\n"
    monkeypatch.setattr("train.training.Run", full)
    assert main(command(tmp_path / "other", archive)) == 1
    assert capsys.readouterr().err == f"error: {told}\n"
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("part", ["params", "rest", "opt_state"])
def test_a_state_that_is_lost_is_not_saved(part, tmp_path):
    images = np.zeros((5, 16, 16, 3), np.uint8)
    run = Run(Config(batch_size=4), Source("a", images), checkpoint.Checkpoints(tmp_path / "checkpoints", 1))
    lost = jax.tree.map(
        lambda leaf: leaf / 0 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, getattr(run.state, part)
    )
    run.state = dataclasses.replace(run.state, **{part: lost})
    with pytest.raises(NonFiniteError, match=r"no longer made of numbers after step 0, at learning rate "):
        run._save()
    run.close()
    assert steps_in(tmp_path / "checkpoints") == []


def test_the_best_checkpoint_outlives_the_process_that_made_it(tmp_path):
    save_some(tmp_path, (1, 0.1), (2, 0.5))
    save_some(tmp_path, (3, 0.7), (4, None), (5, 0.6))
    assert steps_in(tmp_path) == [1, 5]


def save_some(folder, *steps):
    checkpoints = checkpoint.Checkpoints(folder, keep=1)
    for step, error in steps:
        checkpoints.save({"w": jnp.ones(3)}, checkpoint.Place(step), error)
    checkpoints.close()


def test_a_busy_machine_damages_nothing(tmp_path, monkeypatch):
    from orbax.checkpoint._src.metadata import checkpoint as described  # where orbax writes what it says of one

    update = described._MetadataStoreImpl.update

    def late(store, *arguments, **options):
        time.sleep(0.5)
        update(store, *arguments, **options)

    monkeypatch.setattr(described._MetadataStoreImpl, "update", late)
    save_some(tmp_path, (1, 0.5))
    assert problems_of(tmp_path / "1") == []


def test_what_a_save_that_could_not_begin_has_left_ends_no_run(tmp_path, monkeypatch):
    """Orbax raises it when it is closed, once; only then it lets go of its threads."""
    checkpoints, closed = checkpoint.Checkpoints(tmp_path, keep=1), []
    close = checkpoints._manager.close

    def raise_once():
        closed.append("with an error" if not closed else close())
        if len(closed) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "close", raise_once)
    checkpoints.close()
    assert closed == ["with an error", None]


def test_half_a_checkpoint_has_no_name_of_its_own(tmp_path, monkeypatch):
    def begin(path, **options):
        next(path.rglob("*.json")).unlink()  # killed there

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "shutil", SimpleNamespace(rmtree=begin, disk_usage=shutil.disk_usage))
        save_some(tmp_path, (1, 0.5), (2, 0.3), (3, None))
    assert steps_in(tmp_path) == [2, 3]
    assert problems_of(tmp_path / "2") == problems_of(tmp_path / "3") == []
    assert steps_in(tmp_path / checkpoint.DELETED) == [1]
    save_some(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def test_a_second_signal_ends_the_process_at_once(tmp_path, archive):
    words = command(tmp_path / "run", archive, "--epochs", "4000")
    at_once = f"import train.signals; train.signals.AGAIN = 0; {HEEDING}"
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    shell = subprocess.Popen([sys.executable, "-c", at_once, *words], cwd=ROOT, **pipes)
    wait_for_step(tmp_path / "run", 5, shell)
    # The process is held so that both signals are there before the step at hand is over.
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        shell.send_signal(number)
    assert shell.wait(timeout=60) in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert "stopped after" not in shell.communicate()[1]


def test_a_killed_process_loses_the_steps_since_the_last_checkpoint_alone():
    # 30 kills: python -m tests.train.kills
    words = [sys.executable, "-m", "tests.train.kills", "--kills", "1", "--seed", "3"]
    shell = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert shell.returncode == 0, shell.stdout + shell.stderr
    assert "1 of 1 runs ended as the one that was not killed; 1 were killed after a checkpoint" in shell.stdout


def wait_for_step(folder, step, shell):
    log = folder / "steps.jsonl"
    wait_for(shell, lambda: log.exists() and len(log.read_text().splitlines()) >= step)


def test_restoring_needs_what_was_written(whole, archive, tmp_path):
    again = shutil.copytree(whole, tmp_path / "again")
    flip_a_byte(again, 12)
    run = Run.__new__(Run)
    run.checkpoints, run.state = checkpoint.Checkpoints(again / "checkpoints", 3), None
    with pytest.raises(checkpoint.DamagedError, match="place/metadata has changed since it was written"):
        run.restore(12)
