"""The recipes of docs/scaling.md, as far as they can be checked without a cluster."""

import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from train.hosts import Processes, launched
from train.training import parse

from .conftest import ROOT

FOLDER = ROOT / "docs" / "scaling"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.sh"))
OPTIONS = ["--network", "cbam", "--batch-size", "64"]
# Of the server that hosts of Cloud TPU ask.
METADATA = """case "${!#}" in
  http://metadata.google.internal/*/agent-worker-number) echo "$HOST" ;;
  http://metadata.google.internal/*/worker-network-endpoints) echo "$ENDPOINTS" ;;
  *) exit 22 ;;
esac"""


@pytest.fixture
def bin_folder(tmp_path):
    """Commands that only print what they are called with; `srun` calls its command twice, as two tasks."""
    folder = tmp_path / "bin"
    folder.mkdir()
    told = '"python$(printf " %q" "$@")" "gpu ${CUDA_VISIBLE_DEVICES:-none}"'
    commands = {
        "python": f'printf "%s\\n" {told}',  # one write: several processes share the pipe
        "gcloud": 'for HOST in 0 1; do export HOST; bash -c "${!#}"; done',
        "curl": METADATA,
        "taskset": 'shift 2; exec "$@"',
        "srun": 'for id in 0 1; do SLURM_PROCID=$id SLURM_NTASKS=2 "$@"; done',
        "scontrol": 'echo "scontrol $*"',
        "nvidia-smi": "exit 9",  # as where there is no driver
    }
    for name, text in commands.items():
        write(folder / name, text)
    return folder


def write(path, text):
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def start(bin_folder, script, *words, **variables):
    environment = {"PATH": f"{bin_folder}:{os.environ['PATH']}", **variables}
    # What ignores Ctrl-C when it starts, as in the background, cannot trap it.
    heed = "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execvp('bash', ['bash', *sys.argv[1:]])"
    command = [sys.executable, "-c", heed, FOLDER / script, *words]
    return subprocess.Popen(command, cwd=bin_folder.parent, env=environment, stdout=subprocess.PIPE, text=True)


def lines(bin_folder, script, *words, status=0, **variables):
    """What is printed."""
    with start(bin_folder, script, *words, **variables) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == status
    return out.splitlines()


def run(bin_folder, script, *words, **variables):
    """The words after ``python`` of each call."""
    told = lines(bin_folder, script, *words, **variables)
    return [shlex.split(line)[1:] for line in told if line.startswith("python ")]


def trained(words):
    """The options of a call of ``python -m train``."""
    assert words[:2] == ["-m", "train"]
    return parse(words[2:])


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_has_no_complaint(name):
    program = Path(sys.executable).with_name("shellcheck")
    command = shutil.which("shellcheck") if not program.is_file() else program
    assert command, "shellcheck is missing: pip install -e '.[test]'"
    done = subprocess.run([command, FOLDER / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_slurm_job_starts_and_goes_on(bin_folder):
    calls = run(bin_folder, "slurm.sh", *OPTIONS, SLURM_JOB_ID="7")
    assert [trained(call).config.run_dir for call in calls] == ["runs/7"] * 2
    assert trained(calls[0]).config.batch_size == 64
    folder = bin_folder.parent / "runs" / "7"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert run(bin_folder, "slurm.sh", *OPTIONS, SLURM_JOB_ID="7") == [["-m", "train", "--resume", "runs/7"]] * 2


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (1, False), (138, True), (143, False)])
def test_a_slurm_job_is_requeued_where_its_time_is_over(bin_folder, status, requeued):
    write(bin_folder / "srun", f"exit {status}")
    told = lines(bin_folder, "slurm.sh", *OPTIONS, status=status, SLURM_JOB_ID="7")
    assert told == ["scontrol requeue 7"] * requeued
    assert 128 + signal.SIGUSR1 == 138


def test_processes_of_one_host_have_different_numbers(bin_folder):
    found = [trained(call).processes for call in run(bin_folder, "one_host.sh", "2", *OPTIONS)]
    assert sorted(each.process_id for each in found) == [0, 1]
    assert {(each.coordinator, each.num_processes) for each in found} == {("localhost:12345", 2)}


def test_processes_of_one_host_have_a_gpu_each(bin_folder):
    assert lines(bin_folder, "one_host.sh", "2", *OPTIONS).count("gpu none") == 2
    write(bin_folder / "nvidia-smi", 'echo "GPU 0"; echo "GPU 1"')
    told = lines(bin_folder, "one_host.sh", "2", *OPTIONS)
    assert {"gpu 0", "gpu 1"} < {*told}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_reaches_the_processes_of_one_host(bin_folder, number):
    """Each says that it has begun, and after the stop takes a while to save, which the script waits for."""
    save = "sleep 0.3; echo saved; exit 143"
    write(bin_folder / "python", f"trap '{save}' TERM; echo begun; for i in {{1..300}}; do sleep 0.1; done")
    with start(bin_folder, "one_host.sh", "2") as process:
        assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
        process.send_signal(number)
        assert process.stdout.read() == "saved\n" * 2
        assert process.wait(10) == 143


def test_a_process_that_fails_is_told_of(bin_folder):
    write(bin_folder / "python", '[[ "$*" == *"--process-id 0"* ]] && exit 2; exit 0')
    assert lines(bin_folder, "one_host.sh", "2", status=2) == []


@pytest.mark.parametrize(
    ("endpoints", "first"), [("a-0,a-1", "a-0"), ("unknown:0:10.0.0.2,unknown:1:10.0.0.3", "10.0.0.2")]
)
def test_all_hosts_of_a_slice_run_one_command(bin_folder, endpoints, first):
    program = bin_folder.parent / "flax_attn" / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to(bin_folder / "python")
    told = {"HOME": str(bin_folder.parent), "RUN_DIR": "/mnt/a b", "ENDPOINTS": endpoints}
    calls = [trained(call) for call in run(bin_folder, "tpu.sh", "mine", "zone", *OPTIONS, **told)]
    assert [(call.config.network, call.config.run_dir) for call in calls] == [("cbam", "/mnt/a b")] * 2
    assert [call.processes for call in calls] == [Processes(f"{first}:8476", 2, number) for number in range(2)]


def test_a_jobset_runs_what_exists():
    jobset, account, role, binding = yaml.safe_load_all((FOLDER / "jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (hosts,) = jobset["spec"]["replicatedJobs"]
    job = hosts["template"]["spec"]
    assert job["completionMode"] == "Indexed"  # which gives each pod its number
    assert job["parallelism"] == job["completions"] > 1
    pod = job["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"] == binding["subjects"][0]["name"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    mounted = {each["name"] for each in pod["containers"][0]["volumeMounts"]}
    assert mounted == {each["name"] for each in pod["volumes"]}
    script = pod["containers"][0]["args"][0]
    subprocess.run(["bash", "-n", "-c", script], check=True)
    *_, line = script.strip().splitlines()
    assert trained(line.split("python ")[1].split()).config.batch_size == 512
    assert launched({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"})


def test_the_bytes_of_collectives_are_read_from_a_program():
    plan = runpy.run_path(str(FOLDER / "plan.py"))
    text = """
      %a = (f32[3,5]{1,0}, bf16[2]{0}) all-reduce(%b, %c), channel_id=1
      %d = f32[8]{0} all-gather(%e), channel_id=2
      %f = f32[8]{0} add(%d, %d)
    """
    moved = plan["collectives"](text)
    assert moved == [(2, 64), (1, 32)]
    # 12 s of computation, and on 4 devices 2 (3/4 64 / 16 + 2 log) + 3/4 32 / 16 + 2 log, each message a second.
    assert plan["efficiency"](36 * plan["SHARE"], moved, 4, 3, 16, 1) == 12 / (12 + 10 + 3.5)


@pytest.mark.nightly
def test_the_documents_hold_the_plan_that_the_program_prints():
    text = (ROOT / "docs" / "scaling.md").read_text()
    (words,) = re.findall(r"`python (docs/scaling/plan.py [^`]*)`", text)
    done = subprocess.run([sys.executable, *words.split()], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert text.partition("<!-- plan: begin -->\n")[2].partition("<!-- plan: end -->")[0] == done.stdout
