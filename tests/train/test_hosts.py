"""Several devices and several processes: the same numbers, clear refusals, and no silence where one is lost."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flax_attn.testing import tolerance
from train.checkpoints import steps_in
from train.config import PatchConfig
from train.hosts import HEARTBEAT, Processes, join, launched, meet
from train.loop import Run

from ..conftest import ROOT
from .conftest import FILES, HEEDING, wait_for

EXACT = tolerance("step loss elsewhere", "float64")
ALIKE = {"float64": 100, "float32": 10}  # steps, after which rounding parts any two runs
DEVICES = [{"devices": count, "sharding": sharding} for count in (1, 2, 4, 8) for sharding in ("replicated", "full")]
STREAMED = {"sharding": "replicated", "streamed": True}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(*words, cwd=ROOT):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=cwd, env=environment, **pipes)


def ends_of(processes, seconds=300):
    """The status, output and errors of each."""
    try:
        told = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def trained(cases, steps, processes=1, devices=8):
    """What each case's run finds: ``losses`` and ``collectives``."""
    address = [f"127.0.0.1:{free_port()}", processes] if processes > 1 else []
    cases = json.dumps([{"steps": steps, **case} for case in cases])
    program = [ROOT / "tests" / "train" / "hosts_program.py", devices, cases, *address]
    ends = ends_of([start(*program, *([number] if address else [])) for number in range(processes)], seconds=1200)
    assert [status for status, *_ in ends] == [0] * processes, ends
    return json.loads(ends[0][1].splitlines()[-1])


def check(networks, steps, layouts, pairs):
    """Against the first layout: the other layouts, and ``pairs``, those of two processes."""
    runs = [
        {"network": network, "dtype": dtype, "steps": min(steps, most)}
        for network in networks
        for dtype, most in ALIKE.items()
    ]
    found = trained([{**run, **layout} for run in runs for layout in layouts], steps)
    two = trained([{**run, **layout} for run in runs for layout in pairs], steps, processes=2, devices=1)
    assert [each["streamed"] for each in two] == [layout.get("streamed", False) for layout in pairs] * len(runs)
    together = [
        [each["losses"] for each in [*one, *other]]
        for one, other in zip(batched(found, len(layouts)), batched(two, len(pairs)), strict=True)
    ]
    for run, losses in zip(runs, map(np.array, together), strict=True):
        assert np.isfinite(losses).all()
        assert (np.diff(losses[0]) != 0).all()  # it does train
        limit = tolerance("step loss elsewhere", run["dtype"])
        assert (np.abs(losses - losses[0]) <= limit * np.abs(losses[0])).all(), run
    return dict(
        zip(
            [(run["network"], run["dtype"], *layout.values()) for run in runs for layout in layouts], found, strict=True
        )
    )


def batched(values, size):
    return [values[start : start + size] for start in range(0, len(values), size)]


def test_losses_are_the_same_on_any_devices_and_in_two_processes():
    found = check(["cnn"], 10, [DEVICES[0], DEVICES[-2], DEVICES[-1]], [{"sharding": "full"}, STREAMED])
    assert found["cnn", "float64", 1, "replicated"]["collectives"] == {}
    copies = found["cnn", "float64", 8, "replicated"]["collectives"]
    assert list(copies) == ["all-reduce"]
    # All gradients are summed at once, beside the sums of two norms, there and back, and the accuracy in float32.
    (gradients,) = [arrays for arrays in copies["all-reduce"] if not {*arrays} <= {"f64[32]", "f32[]"}]
    assert len(gradients) >= 9  # with the loss
    assert len(copies["all-reduce"]) <= 1 + 2 * 4 + 1
    assert "all-gather" in found["cnn", "float64", 8, "full"]["collectives"]


def test_losses_are_the_same_where_devices_share_tokens():
    """Each of two pairs of devices takes half of the batch, each device of a pair half of the rows of its images."""
    shared = {"devices": 4, "token_devices": 2}
    cases = [{"network": "multi_head"}, {"network": "multi_head", "sharding": "full"}, {"network": "cbam"}]
    one = trained([{**cases[0], "devices": 1}, {**cases[2], "devices": 1}], 5, devices=1)
    found = trained([{**case, **shared} for case in cases[1:]], 5, devices=4)
    for expected, got in zip(one, found, strict=True):
        assert np.abs(np.divide(got["losses"], expected["losses"]) - 1).max() <= EXACT
        assert "collective-permute" in got["collectives"]  # of rows at the edges, which convolutions need


@pytest.mark.nightly
def test_losses_are_the_same_where_two_processes_share_tokens():
    (one,) = trained([{"network": "multi_head", "devices": 1}], 5, devices=1)
    for devices in (1, 2):  # a process has half of the rows of all images, or half of the images
        cases = [{"network": "multi_head", "token_devices": 2, **layout} for layout in ({}, STREAMED)]
        for got in trained(cases, 5, processes=2, devices=devices):
            assert np.abs(np.divide(got["losses"], one["losses"]) - 1).max() <= EXACT


@pytest.mark.nightly
@pytest.mark.parametrize("network", ["cnn", "cbam"])
def test_losses_stay_the_same_over_a_hundred_steps(network):
    check([network], 100, DEVICES, [{"sharding": "replicated"}, {"sharding": "full"}, STREAMED])


def test_a_checkpoint_goes_on_in_any_layout(tmp_path):
    """Two processes, fully sharded, then one process on 4, 8 and 1 devices: the losses of one on one device."""
    common = {"network": "cnn", "schedule": "constant"}
    layouts = [{"devices": 4, "sharding": "replicated"}, {"devices": 8, "sharding": "full"}, {"devices": 1}]
    folders = [str(tmp_path / str(number)) for number in range(len(layouts) + 1)]
    pairs = zip(layouts, folders, folders[1:], strict=False)
    cases = [{**common, **layout, "restore": restore, "save": save} for layout, restore, save in pairs]
    found = trained([{**common, "sharding": "full", "save": folders[0]}], 3, processes=2, devices=1) + trained(cases, 3)
    (whole,) = trained([{**common, "devices": 1}], 3 * len(found), devices=1)
    losses = [loss for each in found for loss in each["losses"]]
    assert np.abs(np.divide(losses, whole["losses"]) - 1).max() <= EXACT


def met(*told, seconds=5):
    """What processes that were told these numbers of processes and ids say, "" where they go on."""
    address = f"127.0.0.1:{free_port()}"

    def one(number, identity):
        try:
            meet("127.0.0.1", int(address.rpartition(":")[2]), Processes(address, number, identity, seconds))
        except ValueError as error:
            return str(error).replace(address, "HOST:PORT")
        return ""

    with ThreadPoolExecutor(len(told)) as pool:
        return list(pool.map(lambda each: one(*each), told))


def test_processes_meet_and_are_refused_together():
    assert met((3, 0), (3, 1), (3, 2)) == [""] * 3
    twice = "--process-id must differ from process to process, got 1 twice"
    assert met((3, 0), (3, 1), (3, 1)) == [twice] * 3
    other = "--num-processes must be the same everywhere, got 3 in process 1, not 2"
    assert met((2, 0), (3, 1)) == [other] * 2
    missing = "no process called with --process-id [2] of 3 within 1 s"
    assert met((3, 0), (3, 1), seconds=1) == [missing] * 2
    (silent,) = met((2, 1), seconds=1)
    assert silent.startswith("--coordinator HOST:PORT does not answer within 1 s: ")


def test_what_calls_and_says_nothing_is_hung_up_on(monkeypatch):
    monkeypatch.setattr("train.hosts.ANSWER", 0.2)
    port = free_port()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(meet, "127.0.0.1", port, Processes(f"127.0.0.1:{port}", 2, 0, 20))
        silent = pool.submit(call, port)
        assert silent.result() == b""
        meet("127.0.0.1", port, Processes(f"127.0.0.1:{port}", 2, 1, 20))
        assert first.result() is None


def call(port):
    """Calls process 0, says nothing, and hears until it hangs up."""
    for _ in range(100):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
                return line.recv(1)
        except ConnectionRefusedError:
            time.sleep(0.1)


def test_two_firsts_do_not_share_a_port():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            ValueError, match=f"--coordinator must name a free port of process 0, got localhost:{port}.*another process"
        ):
            join(Processes(f"localhost:{port}", 2, 0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1", 2, None), "--coordinator, --num-processes and --process-id must be given together"),
        ((None, None, 0), "--coordinator, --num-processes and --process-id must be given together"),
        (("host:1", 0, 0), "--num-processes must be at least 1, got 0"),
        (("host:1", 2, 2), r"--process-id must lie in \[0, 2\), from 0 to below --num-processes, got 2"),
        (("host:1", 2, -1), r"--process-id must lie in \[0, 2\), from 0 to below --num-processes, got -1"),
        (("host", 2, 1), "--coordinator must be HOST:PORT, got 'host'"),
        (("host:1", 2, 1, 0), "--join-seconds must be at least 1, got 0"),
        ((None, None, None, -1), "--join-seconds must be at least 1, got -1"),
        (("host:70000", 2, 1), "--coordinator must be HOST:PORT, got 'host:70000'"),
    ],
)
def test_bad_options(given, message):
    with pytest.raises(ValueError, match=message):
        join(Processes(*given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "--devices must be at least 1 and at most the .* there are, got 0"),
        ({"devices": 10**6}, "--devices must be at least 1 and at most the .* there are, got 1000000"),
        ({"devices": 1, "token_devices": 2}, "--token-devices must divide the number of devices, 1, got 2"),
        ({"token_devices": 10**6}, "--token-devices must divide the .* rows of an image, got 1000000"),
    ],
)
def test_bad_devices(options, message, source):
    with pytest.raises(ValueError, match=message):
        Run(PatchConfig(**options), source)


LAUNCHED = {
    "slurm": {"SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
    "mpi": {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
    "kubernetes": {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"},
    "tpu": {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"},
    "tpu processes": {"TPU_PROCESS_ADDRESSES": "a:1,a:2", "TPU_WORKER_HOSTNAMES": "a", "TPU_WORKER_ID": "1"},
    "tpu slices": {"TPU_WORKER_HOSTNAMES": "a", "TPU_WORKER_ID": "0", "MEGASCALE_NUM_SLICES": "2"},
}
ALONE = {
    "nothing": {},
    "salloc": {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"},
    "srun -n1": {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
    "mpirun -n 1": {"OMPI_COMM_WORLD_SIZE": "1"},
    "pod": {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    "one tpu host": {"TPU_WORKER_HOSTNAMES": "a"},
    "one tpu slice": {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "1"},
}


@pytest.mark.parametrize("name", [*LAUNCHED, *ALONE])
def test_batch_systems_are_known_by_their_variables(name):
    assert bool(launched(LAUNCHED.get(name) or ALONE[name])) == (name in LAUNCHED)


@pytest.mark.parametrize("told", [{"SLURM_PROCID": "0", "SLURM_NTASKS": "x"}, {"OMPI_COMM_WORLD_SIZE": "-2"}])
def test_a_number_of_processes_that_is_none(told):
    *_, (name, value) = told.items()
    with pytest.raises(ValueError, match=f"^{name} must be a number, got '{value}'$"):
        launched(told)


JOINED = """
import os, sys, warnings
from train.hosts import Processes, join
warnings.simplefilter("ignore")
for variables in eval(sys.argv[1]):
    os.environ.update(variables)
    try:
        join(Processes())
    except ValueError as error:
        print(error)
    for name in variables:
        del os.environ[name]
"""


def test_batch_systems_that_lack_what_jax_needs_are_named():
    """Neither the package kubernetes, nor the variables of Open MPI 4 or of a step of SLURM."""
    ((status, out, told),) = ends_of([start("-c", JOINED, [LAUNCHED[name] for name in ("slurm", "mpi", "kubernetes")])])
    assert status == 0, told
    needs = [
        "by SLURM_JOB_ID, SLURM_STEP_NODELIST and SLURM_LOCALID, as SLURM_NTASKS is 2, or by --coordinator",
        "by OMPI_MCA_orte_hnp_uri, which Open MPI 4 sets, as OMPI_COMM_WORLD_SIZE is 2, or by --coordinator",
        "by the package kubernetes, as JOB_COMPLETION_INDEX is set, or by --coordinator",
    ]
    for line, need in zip(out.splitlines(), needs, strict=True):
        assert line.startswith("the processes of the run could not join: ")
        assert need in line


def words(archive, folder, number, address, *more):
    process = ["--coordinator", address, "--num-processes", 2, "--process-id", number]
    options = [
        "--data",
        f"npz:{archive}",
        "--network",
        "cnn",
        "--epochs",
        4,
        "--batch-size",
        8,
        "--save-steps",
        2,
        "--devices",
        2,
    ]
    return ["-c", HEEDING, *options, "--run-dir", folder, *process, *more]


def two(archive, folders, *more):
    """Two processes that train."""
    address = f"127.0.0.1:{free_port()}"
    pairs = zip(folders, more or ((), ()), strict=True)
    return [start(*words(archive, folder, number, address, *each)) for number, (folder, each) in enumerate(pairs)]


def checkpoints_in(folder):
    return steps_in(folder / "checkpoints")


@pytest.fixture(scope="module")
def whole(archive, tmp_path_factory):
    """A run of two processes, of 16 steps."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    (status, out, _), other = ends_of(two(archive, [folder] * 2))
    assert (status, other[0]) == (0, 0)
    assert "batches of 8 on 2 x cpu" in out
    assert "epoch" not in other[1]  # the first alone prints
    assert sorted(path.name for path in folder.iterdir()) == FILES
    return folder


def errors_in(folder):
    return np.array([json.loads(line)["error"] for line in (folder / "steps.jsonl").read_text().splitlines()])


def check_errors(folder, whole):
    """Every step of a run had the error that it has in the whole one."""
    errors, expected = errors_in(folder), errors_in(whole)
    assert errors.shape == expected.shape
    assert (np.abs(errors - expected) <= tolerance("training error", "float32") * expected).all()


def resumes_on_one(folder, whole):
    """Continues with one process and other devices."""
    ((status, out, told),) = ends_of(
        [start("-m", "train", "--resume", folder, "--devices", 1, "--sharding", "replicated")]
    )
    assert status == 0, told
    assert "continuing after step" in out
    check_errors(folder, whole)


def test_two_processes_train_in_pieces(archive, whole, tmp_path):
    folder = tmp_path / "run"
    ends = ends_of(two(archive, [folder] * 2, *[("--sharding", "full")] * 2))
    assert [status for status, *_ in ends] == [0, 0], ends
    check_errors(folder, whole)


def test_a_stop_of_one_process_stops_both(archive, tmp_path):
    folder = tmp_path / "run"
    processes = two(archive, [folder] * 2, ("--epochs", 1000), ("--epochs", 1000))
    wait_for(processes[0], lambda: 4 in checkpoints_in(folder))
    processes[1].send_signal(signal.SIGTERM)
    (status, _, told), (other, *_) = ends_of(processes)
    assert (status, other) == (143, 143)
    assert f"stopped after step {checkpoints_in(folder)[-1]}; the last good checkpoint is" in told


def test_a_killed_process_takes_the_other_down_and_one_goes_on(archive, whole, tmp_path):
    folder = tmp_path / "run"
    processes = two(archive, [folder] * 2, *[("--sharding", "full")] * 2)
    wait_for(processes[0], lambda: 4 in checkpoints_in(folder), every=0.005)
    processes[1].kill()
    killed = time.monotonic()
    (status, _, told), _ = ends_of(processes)
    assert status != 0
    assert time.monotonic() - killed < 2 * HEARTBEAT
    assert "Task 1 heartbeat timeout" in told or "Gloo" in told
    assert checkpoints_in(folder)[-1] < 16  # which was the last step
    resumes_on_one(folder, whole)


def test_what_differs_between_processes_is_named_by_both(archive, tmp_path):
    ends = ends_of(two(archive, [tmp_path / "run"] * 2, ("--seed", 1), ("--seed", 2)))
    for status, _, told in ends:
        assert status == 2
        assert "the options of a run must be the same in all processes, got in process 0 and 1: seed 1 and 2" in told
    assert not (tmp_path / "run").exists()


def failing(what):
    """python -c: as python -m train, but in its second epoch the process fails to read a batch: ``what`` is called."""
    return (
        "import time, train.hosts as hosts, train.data.feed as feed; hosts.STEP = 5; fed = feed.Feed._fed\n"
        "batches = iter(range(100))\n"
        f"feed.Feed._fed = lambda *given: fed(*given) if next(batches) < 6 else {what}\n{HEEDING}"
    )


def ends_of_one_failing(archive, folder, number, what):
    """The status and errors of the process that fails and of the other, and the seconds in which both ended."""
    address = f"127.0.0.1:{free_port()}"
    lines = [words(archive, folder, each, address) for each in range(2)]
    programs = [failing(what if each == number else "fed(*given)") for each in range(2)]
    processes = [start("-c", program, *line[2:]) for program, line in zip(programs, lines, strict=True)]
    wait_for(processes[number], lambda: 4 in checkpoints_in(folder))
    began = time.monotonic()
    ends = [(status, told) for status, _, told in ends_of(processes)]
    return ends[number], ends[1 - number], time.monotonic() - began


@pytest.mark.parametrize("number", [1, pytest.param(0, marks=pytest.mark.nightly)])
def test_a_process_that_hangs_ends_and_is_named(archive, tmp_path, number):
    hung, (other, told), seconds = ends_of_one_failing(archive, tmp_path / "run", number, "time.sleep(1000)")
    assert hung[0] == 1
    assert re.search(rf"error: process {number} of 2 took more than \d+ s to read batch 2 of epoch 2, and", hung[1])
    assert "in <lambda>" in hung[1]  # where it hangs
    assert other != 0
    assert "to read" not in told
    assert seconds < 2 * HEARTBEAT


FULL = (
    "__import__('unittest.mock').mock.patch('orbax.checkpoint.Checkpointer.save', side_effect=ValueError('no space'))"
    ".start() and fed(*given)"
)


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        pytest.param(1, FULL, "error: no space; the last good checkpoint is", marks=pytest.mark.nightly),
        (0, "1 // 0", "ZeroDivisionError: integer"),
        pytest.param(1, "open('/none')", "error: [Errno 2] No such", marks=pytest.mark.nightly),
    ],
)
def test_an_error_of_one_process_ends_both(archive, tmp_path, number, error, message):
    failed, (other, _), seconds = ends_of_one_failing(archive, tmp_path / "run", number, error)
    assert failed[0] == 1
    assert message in failed[1]
    assert other != 0
    assert seconds < 2 * HEARTBEAT


def test_devices_of_other_numbers_are_refused_by_all():
    address = f"127.0.0.1:{free_port()}"
    program = ROOT / "tests" / "train" / "hosts_program.py"
    ends = ends_of([start(program, 2 + number, "[]", address, 2, number) for number in range(2)])
    for status, _, told in ends:
        assert status == 1
        assert "ValueError: all processes must have the same number of devices, got [2, 3]" in told


@pytest.mark.parametrize("resumed", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_a_folder_that_is_not_shared_is_refused_and_left_as_it_was(archive, tmp_path, resumed, request):
    """Each process has a working directory of its own, and both name a folder in it by the same options."""
    address = f"127.0.0.1:{free_port()}"
    homes = [tmp_path / str(number) for number in range(2)]
    for home in homes:
        home.mkdir()
        if resumed:
            shutil.copytree(request.getfixturevalue("whole"), home / "run")
    before = {*tmp_path.rglob("*")}
    lines = [words(archive, "run", number, address, *["--resume", "run"][: 2 * resumed]) for number in range(2)]
    ends = ends_of([start(*line, cwd=home) for line, home in zip(lines, homes, strict=True)])
    for status, _, told in ends:
        assert status == 2
        assert "--run-dir and --resume must name a folder that all processes share, got run" in told
    assert {*tmp_path.rglob("*")} - before <= {home / "run" for home in homes}  # an empty one
