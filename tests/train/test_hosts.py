"""Several devices and several processes: the same numbers, clear refusals, and no silence where one is lost."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from flax_attn.testing import tolerance

from ..conftest import ROOT

EXACT = tolerance("step loss elsewhere", "float64")
DEVICES = [{"devices": count, "sharding": sharding} for count in (1, 2, 4, 8) for sharding in ("replicated", "full")]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(*words):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, env=environment, **pipes)


def ends_of(processes, seconds=300):
    """The status, output and errors of each."""
    try:
        told = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def losses(cases, steps, processes=1, devices=8):
    """The losses (cases, steps)."""
    address = [f"127.0.0.1:{free_port()}", processes] if processes > 1 else []
    program = [ROOT / "tests" / "train" / "hosts_program.py", devices, steps, json.dumps(cases), *address]
    ends = ends_of([start(*program, *([number] if address else [])) for number in range(processes)])
    assert [status for status, *_ in ends] == [0] * processes, ends
    return np.array(json.loads(ends[0][1].splitlines()[-1]))


def check(networks, steps, layouts, pairs):
    cases = [{"network": network, **layout} for network in networks for layout in layouts]
    found = losses(cases, steps).reshape(len(networks), len(layouts), steps)
    assert np.isfinite(found).all()
    assert (np.abs(np.diff(found[:, 0], axis=1)) > 0).all()  # it does train
    assert (np.abs(found - found[:, :1]) <= EXACT * np.abs(found[:, :1])).all()
    cases = [{"network": network, "sharding": sharding} for network in networks for sharding in pairs]
    two = losses(cases, steps, processes=2, devices=1).reshape(len(networks), len(pairs), steps)
    assert (np.abs(two - found[:, :1]) <= EXACT * np.abs(found[:, :1])).all()


def test_losses_are_the_same_on_any_devices_and_in_two_processes():
    check(["cbam"], 10, [DEVICES[0], DEVICES[-2], DEVICES[-1]], ["full"])


@pytest.mark.nightly
def test_losses_stay_the_same_over_a_hundred_steps():
    check(["cnn", "cbam"], 100, DEVICES, ["replicated", "full"])
