"""`python -m torch_ref parity`: what it takes, writes and refuses."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.faults.planting import after
from torch_ref import __main__ as command
from torch_ref.report.docs import ROOT
from torch_ref.report.run import from_json


def test_it_writes_what_is_asked_for(tmp_path, capsys):
    paths = {kind: tmp_path / f"report.{kind}" for kind in ("json", "markdown", "html")}
    options = [text for kind, path in paths.items() for text in (f"--{kind}", str(path))]
    status = command.main(["parity", "ChannelPool", "--dtypes", "float64", "--steps", "1", *options])
    assert status == 0
    shown = capsys.readouterr().out
    assert "ChannelPool" in shown
    assert "1 cases" in shown
    assert from_json(paths["json"].read_text()).cases[0].name == "ChannelPool"
    assert json.loads(paths["json"].read_text())["platform"] == "cpu"
    assert paths["markdown"].read_text().startswith("# Parity on cpu")
    assert paths["html"].read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["Nope"], "NAME must be a class or a case among .*, got Nope"),
        (["CBAM", "--docs", "--steps", "3"], "--docs must have the default dtypes, steps and seed, got .* --steps 3 "),
        (["--dtypes", "float16"], "must be some of float64, float32, bfloat16, comma-separated, got 'float16'"),
        (["--steps", "-1"], "expected one argument|must be a whole number >= 0"),
        (["--steps", "many"], "must be a whole number >= 0, got 'many'"),
        (["--jobs", "0"], "must be a whole number >= 1, got '0'"),
        (["--platform", "npu"], "invalid choice: 'npu'"),
        (["--precision", "low"], "invalid choice: 'low'"),
        (["--json", "no/such/folder/report.json"], "must be a file in an existing folder"),
    ],
)
def test_bad_options(options, message, capsys):
    try:
        status = command.main(["parity", *options])
    except SystemExit as error:  # argparse's own
        status = error.code
    assert status == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_platform_without_a_device(monkeypatch, capsys):
    import jax

    def devices():
        raise RuntimeError("Unknown backend tpu\nmore")

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert command.main(["parity", "CBAM", "--platform", "tpu"]) == 2
    assert (
        "--platform must be one with a device that JAX finds, got tpu; is flax_attn[tpu] installed?"
        in capsys.readouterr().err
    )


def test_a_failure_is_the_exit_status(monkeypatch, capsys):
    after("ChannelPool.__call__", lambda pooled: pooled[..., ::-1])(monkeypatch)
    assert command.main(["parity", "ChannelPool", "--dtypes", "float64", "--steps", "0"]) == 1
    assert "FAIL float64 train output" in capsys.readouterr().out


def test_without_pytorch_one_line_names_the_extra(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "torch_ref", "parity", "CBAM"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "error: the reference needs PyTorch: pip install -e '.[torch]'\n"
