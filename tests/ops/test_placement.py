"""Devices that share the queries of attention, or the batch of a norm: the numbers of one device."""

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


@pytest.mark.parametrize("form", ["shard_map", "pmap"])
def test_norms_take_the_statistics_of_all_devices(found, form):
    output, *stats, scale, bias, x = found["norms"][form]
    assert output <= tolerance("output", "float64")
    assert len(stats) == 2
    assert max(stats) <= tolerance("buffer", "float64")
    assert max(scale, bias) <= tolerance("parameter gradient", "float64")
    assert x <= tolerance("input gradient", "float64")
