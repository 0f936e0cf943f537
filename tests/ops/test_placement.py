"""Devices that share the queries of attention: the numbers of one device, in less memory each."""

import json
import os
import subprocess
import sys

import pytest

from flax_attn.testing import tolerance

from ..conftest import ROOT


@pytest.fixture(scope="module")
def found():
    """What the program prints, which has four devices."""
    command = [sys.executable, "-m", "tests.ops.placement_program"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_devices_that_share_queries_compute_what_one_does(found):
    assert len(found["errors"]) == 9
    for name, (output, *gradients) in found["errors"].items():
        assert output <= tolerance("output", "float64"), name
        assert len(gradients) >= 3
        assert max(gradients) <= tolerance("input gradient", "float64"), name


def test_each_device_has_its_own_queries_alone(found):
    assert {*found["parts"].values()} == {4}  # two of the batch, two of the queries
    for name, (one, two, four) in found["held"].items():
        assert two < 0.7 * one, name
        assert four < 0.5 * one, name
