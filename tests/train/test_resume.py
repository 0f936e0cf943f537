"""A run that was stopped, killed or damaged continues to the bit, or says why it cannot."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.__main__ import main
from train.checkpoints import Checkpoints, Place, SaveError, problems_of, steps_in
from train.config import PatchConfig
from train.data import Source
from train.loop import NonFiniteError, Run, StoppedError, fit
from train.runs import RunFolder, check_run_dir, machine, read_config
from train.show import Bar
from train.signals import Stop
from train.training import parse, prepare, train

from . import kills
from .conftest import compiled, results

resource = pytest.importorskip("resource")
STEPS = 12  # three epochs of four


def words(folder, archive, *more):
    options = ["--data", f"npz:{archive}", "--batch-size", "8", "--epochs", "3", "--save-steps", "3"]
    return [*options, "--network", "multi_head", "--run-dir", str(folder), *more]  # it has dropout


def resume(folder, *more):
    return main(["--resume", str(folder), *more])


class StopAt(Stop):
    """As if a signal had come during a step."""

    def __init__(self, run, step):
        super().__init__()
        self.run, self.step = run, step

    def __bool__(self):
        return self.run.place.step >= self.step


def stop_at(step, argv):
    """Runs the command until a step, and lets it save and leave."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr("train.loop.BLOCK", 0)  # looks after every step
        run, *others = prepare(parse(argv), stack)
        with pytest.raises(StoppedError):
            train(run, *others, StopAt(run, step))


def checkpoint_of(folder, step):
    return folder / "checkpoints" / str(step)


def place_of(folder, step):
    return json.loads((checkpoint_of(folder, step) / "place" / "metadata").read_text())


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, archive):
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(words(folder, archive)) == 0
    return folder


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory, archive):
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    stop_at(6, words(folder, archive))
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A run that was stopped in the middle of its second epoch."""
    return shutil.copytree(stopped_once, tmp_path / "run")


@pytest.fixture
def ended(whole, tmp_path):
    """A copy of a run that has ended."""
    return shutil.copytree(whole, tmp_path / "ended")


def test_the_last_checkpoints_are_kept(whole):
    assert steps_in(whole / "checkpoints") == [8, 11, 12]
    assert all(problems_of(checkpoint_of(whole, step)) == [] for step in steps_in(whole / "checkpoints"))


def test_a_stopped_run_has_saved_at_once_and_continues_to_the_bit(stopped, whole, capsys):
    assert steps_in(stopped / "checkpoints")[-1] == 6
    assert not (stopped / "model.safetensors").exists()
    with compiled() as names:
        assert resume(stopped) == 0
    assert "continuing after step 6" in capsys.readouterr().out
    assert names.count("train_step") == 1
    assert results(stopped) == results(whole)


def test_a_stop_at_the_end_of_an_epoch_does_not_wait_for_its_test(tmp_path, archive, whole):
    run = tmp_path / "run"
    stop_at(4, words(run, archive))
    first = place_of(run, 4)
    assert (first["step"], first["epochs"], first["tally"][0]) == (4, 0, 32)
    assert not (run / "metrics.jsonl").exists()
    stop_at(12, ["--resume", str(run)])
    assert place_of(run, 12)["epochs"] == 2
    assert resume(run) == 0
    assert results(run) == results(whole)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed, seconds = first["tally"][3:]
    assert timed == 3 * 8  # without the step that compiles
    assert lines[0]["images_per_second"] == timed / seconds
    assert sorted(os.listdir(run / "checkpoints")) == sorted(os.listdir(whole / "checkpoints"))
    assert (place_of(run, STEPS)["step"], place_of(run, STEPS)["epochs"]) == (STEPS, 3)


def test_a_run_without_a_checkpoint_starts_over(stopped, whole):
    shutil.rmtree(stopped / "checkpoints")
    with (stopped / "steps.jsonl").open("a") as file:
        file.write('{"step": 7, "er')  # cut off by a kill
    assert resume(stopped) == 0
    assert results(stopped) == results(whole)


def test_a_finished_run_only_fills_its_folder(ended, whole):
    for name in ("attention.png", "model.safetensors"):
        (ended / name).unlink()
    stop_at(STEPS, ["--resume", str(ended)])
    assert not (ended / "attention.png").exists()
    assert resume(ended) == 0
    assert results(ended) == results(whole)
    assert (ended / "attention.png").exists()


def test_a_flipped_byte_or_a_missing_file_is_found(whole, tmp_path):
    damaged = shutil.copytree(checkpoint_of(whole, STEPS), tmp_path / "12")
    files = files_of(damaged)
    assert len(files) > 8
    for name, content in files.items():
        middle = len(content) // 2
        (damaged / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        assert problems_of(damaged) or name.name == "commit_success.txt", name
        (damaged / name).unlink()
        assert [problem.split(" is ")[0] for problem in problems_of(damaged)] == [name.as_posix()]
        (damaged / name).write_bytes(content)
    assert problems_of(damaged) == []


def damage(folder, step):
    path = checkpoint_of(folder, step) / "place" / "metadata"
    path.write_bytes(path.read_bytes().replace(b'"step"', b'"stop"'))


def test_a_damaged_checkpoint_is_refused_and_an_older_one_offered(stopped, whole, capsys):
    # Killed in between: the new checkpoint has its name, the old one of the same step is not deleted yet.
    shutil.copytree(checkpoint_of(stopped, 6), stopped / "checkpoints" / "deleted")
    damage(stopped, 6)
    before = files_of(stopped)
    assert resume(stopped) == 2
    told = capsys.readouterr().err
    assert f"error: checkpoint {checkpoint_of(stopped, 6)} is damaged: place/metadata has changed" in told
    assert "; to continue from 4, move it away: mv " in told
    assert files_of(stopped) == before
    subprocess.run(told.partition("move it away: ")[2], shell=True, check=True)
    stop_at(5, ["--resume", str(stopped)])  # what the damaged one replaced does not come back
    assert "continuing after step 4" in capsys.readouterr().out
    assert resume(stopped) == 0
    assert results(stopped) == results(whole)


@pytest.mark.parametrize("text", ["[]", "{"])
def test_unreadable_digests(text, ended, capsys):
    (checkpoint_of(ended, 12) / "digests.json").write_text(text)
    assert resume(ended) == 2
    assert "digests.json is missing or unreadable" in capsys.readouterr().err


def test_other_options_are_refused_one_by_one(stopped, capsys):
    assert resume(stopped, "--network", "cnn", "--learning-rate", "0.1") == 2
    told = capsys.readouterr().err
    assert "network multi_head then, cnn now" in told
    assert "learning_rate 0.003 then, 0.1 now" in told
    assert resume(stopped, "--run-dir", "elsewhere") == 2
    assert "then, elsewhere now" in capsys.readouterr().err


def test_what_changes_no_number_may_change(stopped, whole, archive, tmp_path):
    began = read_config(stopped)
    moved = f"npz:{shutil.copy(archive, tmp_path / 'moved.npz')}"
    assert resume(stopped, "--keep", "1", "--save-steps", "0", "--data", moved) == 0
    assert results(stopped) == results(whole)
    assert len(steps_in(stopped / "checkpoints")) <= 2
    # The next resume begins with these.
    assert read_config(stopped) == dataclasses.replace(began, keep=1, save_steps=0, data=moved, run_dir=str(stopped))


def test_a_folder_of_an_earlier_version_continues_to_the_bit(stopped, whole):
    config = json.loads((stopped / "config.json").read_text())
    (stopped / "config.json").write_text(json.dumps({n: config[n] for n in config.keys() - {"task", "tensorboard"}}))
    for name in ("machine.json", ".lock"):
        (stopped / name).unlink()
    checkpoint = checkpoint_of(stopped, 6)
    place = place_of(stopped, 6)
    place = {**place, "tally": place["tally"][:3], "speed": 0.0}
    (checkpoint / "place" / "metadata").write_text(json.dumps(place))
    digests = json.loads((checkpoint / "digests.json").read_text())
    digests["place/metadata"] = hashlib.sha256(json.dumps(place).encode()).hexdigest()
    digests["_CHECKPOINT_METADATA"] = "of another content"
    (checkpoint / "digests.json").write_text(json.dumps(digests))
    (stopped / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir()
    assert resume(stopped) == 0
    assert results(stopped) == results(whole)


def test_a_run_that_continues_on_another_machine_says_so(ended, capsys):
    began = json.loads((ended / "machine.json").read_text())
    assert began == machine(read_config(ended))
    assert began.items() >= {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}.items()
    assert resume(ended) == 0
    assert "bit-identical" not in capsys.readouterr().out
    (ended / "machine.json").write_text(json.dumps(began | {"flax": "0.0.1"}))
    assert resume(ended) == 0
    assert f": flax 0.0.1 then, {began['flax']} now" in "".join(capsys.readouterr().out.splitlines())


SETTINGS = {
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": False,
    "JAX_RANDOM_SEED_OFFSET": 1,
    "JAX_ENABLE_X64": True,
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_SOFTMAX_CUSTOM_JVP": True,
    "JAX_DISABLE_JIT": True,
    "JAX_DISABLE_MOST_OPTIMIZATIONS": False,  # which these tests do
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_changes_numbers_is_refused_by_name(name, ended, capsys):
    before, usual, other = files_of(ended), machine(read_config(ended))[name], SETTINGS[name]
    jax.config.update(name.lower(), other)
    try:
        assert resume(ended) == 2
    finally:
        jax.config.update(name.lower(), usual)
    wanted = f"{name} unset" if usual is None else f"{name}={usual}"
    told = f"--resume {ended} needs the settings that the run began with: {wanted} (now {other})"
    assert capsys.readouterr().err == f"error: {told}\n"
    assert files_of(ended) == before


@pytest.mark.parametrize("name", ["XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE"])
def test_a_variable_that_changes_numbers_is_refused_by_name(name, ended, capsys, monkeypatch):
    began = json.loads((ended / "machine.json").read_text())
    began[name] = "--then=1"
    (ended / "machine.json").write_text(json.dumps(began))
    monkeypatch.setenv(name, "--now=2")
    assert resume(ended) == 2
    assert f"needs the settings that the run began with: {name}=--then=1 (now --now=2)\n" in capsys.readouterr().err


def test_a_broken_file_stops_a_resume_before_anything_changes(ended, archive, tmp_path, capsys):
    np.savez(tmp_path / "other.npz", images=np.load(archive)["images"][:39])
    other = ["--data", f"npz:{tmp_path / 'other.npz'}"]
    differs = "images 40 then, 39 now; train [0, 32] then, [0, 31] now; test [32, 40] then, [31, 39] now; digest "
    cases = [
        ("machine.json", "[", [], "machine.json must be readable JSON"),
        ("steps.jsonl", "", [], "steps.jsonl must have at least 12 lines, got 0"),
        ("metrics.jsonl", '{"epoch": 1', [], "metrics.jsonl must have at least 3 lines, got 0"),
        ("config.json", '{"colour": 1}', [], "config.json must hold the options of a run of this version, got: "),
        ("config.json", '{"epochs": "3"}', [], "config.json must hold the options of a run of this version, got: "),
        ("config.json", '{"task": "chess"}', [], "config.json must hold the options of a run of this version, got: "),
        ("config.json", "{", [], "config.json must be readable JSON"),
        (".lock", "", other, differs),
    ]
    for name, text, more, told in cases:
        content = (ended / name).read_bytes()
        (ended / name).write_text(text, encoding="latin-1")
        before = files_of(ended)
        assert resume(ended, "--keep", "1", *more) == 2
        assert told in capsys.readouterr().err
        assert files_of(ended) == before
        (ended / name).write_bytes(content)
    folder = RunFolder(ended)
    folder.hold()  # nobody holds it any more
    folder.close()


def test_what_cannot_be_resumed(tmp_path, stopped, archive, capsys):
    assert resume(tmp_path / "nothing") == 2
    assert capsys.readouterr().err == f"error: there must be a run in {tmp_path / 'nothing'}, got no such folder\n"
    assert main(words(stopped, archive)) == 2
    assert f"to continue the run in it: --resume {stopped}" in capsys.readouterr().err


def test_a_folder_is_free_once_the_process_that_held_it_is_gone(stopped):
    hold = "file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(600)"
    command = [sys.executable, "-c", f"import fcntl, sys, time; {hold}", str(stopped / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(ValueError, match="in which no other process trains"):
            RunFolder(stopped).hold()
        holder.kill()
    for _ in range(2):  # and so it is when the one that held it lets go
        folder = RunFolder(stopped)
        folder.hold()
        folder.close()


def begun(config, source):
    folder = RunFolder(check_run_dir(config))
    folder.begin(config, source)
    return folder


def test_a_folder_is_created_by_one_process_alone(tmp_path):
    config, source = PatchConfig(run_dir=str(tmp_path)), Source("a", np.zeros((5, 16, 17, 3), np.uint8))
    another = RunFolder(tmp_path)
    another.hold()  # and has not written anything yet
    with pytest.raises(ValueError, match="in which no other process trains"):
        begun(config, source)
    another.close()
    (tmp_path / ".config.json.unfinished").write_text("{")  # of a run that was killed before it began
    begun(config, source).close()
    with pytest.raises(ValueError, match="must be a new or empty folder"):
        begun(config, source)


def test_names_are_given_to_what_is_on_the_disk(tmp_path, archive, monkeypatch):
    synced, renamed, fsync, rename = {}, [], os.fsync, os.rename

    def note_and_sync(number):
        synced[os.fstat(number).st_ino] = os.fstat(number).st_size
        fsync(number)

    def check_and_rename(source, target):
        if Path(target).name.isdecimal():
            files = [path for path in Path(source).rglob("*") if path.is_file()]
            files += (tmp_path / "run").glob("*.jsonl")  # the lines that the checkpoint relies on
            renamed.append([path.name for path in files if synced.get(path.stat().st_ino) != path.stat().st_size])
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_and_sync)
    monkeypatch.setattr(os, "rename", check_and_rename)
    stop_at(4, words(tmp_path / "run", archive))
    assert renamed == [[], []]


def test_a_full_disk_is_told_in_one_line(stopped, whole, capfd):
    """Files that may grow no further are written as on a full disk: half of each is there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        status = resume(stopped, "--save-steps", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told, good = capfd.readouterr(), f"the last good checkpoint is {checkpoint_of(stopped, 6)}"
    assert status == 1
    assert told.out.count("a checkpoint could not be written (") == told.out.count(f"; {good}\n") == STEPS - 6
    # The weights at the end do not fit, either.
    assert re.fullmatch(rf"error: .*; {re.escape(good)}\n", told.err)
    assert steps_in(stopped / "checkpoints")[-1] == 6
    assert resume(stopped) == 0
    assert results(stopped) == results(whole)


def test_a_full_memory_is_told_in_one_line(tmp_path, archive, monkeypatch, capsys):
    def full(*arguments, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocator")

    monkeypatch.setattr("train.loop.train_step", full)
    assert main(words(tmp_path / "run", archive)) == 1
    told = "error: RESOURCE_EXHAUSTED: Out of memory; there is no checkpoint yet\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("part", ["params", "rest", "opt_state"])
def test_a_non_finite_state_is_not_saved(part, tmp_path, console):
    config = PatchConfig(batch_size=4, run_dir=str(tmp_path / "run"), epochs=1)
    run = Run(config, Source("a", np.zeros((5, 16, 16, 3), np.uint8)))

    class Broken(Stop):
        """Breaks the state after the first step, and then asks the run to save."""

        def __bool__(self):
            lost = jax.tree.map(
                lambda leaf: leaf / 0 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, getattr(run.state, part)
            )
            run.state = dataclasses.replace(run.state, **{part: lost})
            return True

    folder, checkpoints = begun(config, run.source), Checkpoints(tmp_path / "checkpoints", 1)
    with pytest.raises(NonFiniteError, match=r"non-finite state after step 1$"):
        fit(run, folder, checkpoints, Bar(1, console), Broken())
    folder.close()
    assert steps_in(tmp_path / "checkpoints") == []


@pytest.fixture(scope="module")
def run():
    return Run(PatchConfig(batch_size=4, network="cnn"), Source("a", np.zeros((5, 16, 16, 3), np.uint8)))


def save_some(folder, run, *steps):
    for step in steps:
        Checkpoints(folder, 2).save(run.state, Place(step))


@pytest.mark.parametrize("deleted", [False, True])
def test_a_save_that_was_killed_once_it_was_complete_is_finished(deleted, tmp_path, run):
    save_some(tmp_path, run, 3, 4)
    (tmp_path / "4").rename(tmp_path / ".saving")
    (tmp_path / ("deleted" if deleted else "4")).mkdir()
    assert Checkpoints(tmp_path, 2).newest() == 4
    assert steps_in(tmp_path) == [3, 4]
    assert problems_of(tmp_path / "4") == []


def test_a_save_that_was_killed_before_it_was_complete_is_not_there(tmp_path, run):
    save_some(tmp_path, run, 3, 4)
    (tmp_path / "4").rename(tmp_path / ".saving")
    (tmp_path / ".saving" / "place" / "metadata").unlink()
    assert Checkpoints(tmp_path, 2).newest() == 3
    save_some(tmp_path, run, 5)
    assert sorted(os.listdir(tmp_path)) == ["3", "5"]


def test_a_failed_save_leaves_the_checkpoints_as_they_were(tmp_path, run):
    save_some(tmp_path, run, 4)
    (tmp_path / ".saving").write_text("a file in the way")
    with pytest.raises(SaveError):
        save_some(tmp_path, run, 5)
    assert steps_in(tmp_path) == [4]
    assert problems_of(tmp_path / "4") == []


def test_a_killed_process_loses_only_the_steps_since_the_last_checkpoint(capsys):
    # 30 kills: python -m tests.train.kills
    assert kills.main(["--kills", "1", "--epochs", "1", "--seed", "3"]) == 0
    assert "1 of 1 runs ended as the undisturbed one; 1 were killed after a checkpoint" in capsys.readouterr().out
