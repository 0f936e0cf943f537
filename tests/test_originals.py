"""Every block against code that no one here wrote: the same numbers from the same weights."""

import importlib
import inspect

import numpy as np
import pytest

import flax_attn
from flax_attn.convert import NAMES
from flax_attn.registry import BLOCKS
from flax_attn.testing import tolerances
from torch_ref.__main__ import main
from torch_ref.originals import ORIGINALS, Original, find_originals
from torch_ref.originals.check import bound, class_of, differences

IN_PACKAGES = find_originals()
# The tutorials' own blocks: tests/convert/test_tutorial_checkpoints.py holds them against the tutorials' code.
TUTORIALS = {
    "AdditiveAttention",
    "ChannelGate",
    "ConvAttention",
    "ConvMultiHeadAttention",
    "MultiHeadAttention",
    "PointwiseSpatialAttention",
    "SpatialAttentionModule",
    "SpatialGate",
    "UseAttentionModel",
}


def is_quick(original):
    """Whether `make test` compares it: a network takes half a minute, so of these one, whose blocks have attention."""
    return original.block != "ResNet" or ("cbam_resnet18" in original.name and original.only != "224x224")


@pytest.mark.parametrize(
    "original",
    [pytest.param(one, id=one.name, marks=[] if is_quick(one) else [pytest.mark.nightly]) for one in IN_PACKAGES],
)
def test_ours_is_the_original(original):
    errors = differences(original)
    assert any("gradient" in name for name in errors)
    assert {name: error for name, error in errors.items() if not error <= bound(original, name)} == {}


def test_names_are_unique():
    names = [one.name for one in ORIGINALS]
    assert sorted(set(names)) == sorted(names)


def test_every_block_has_an_original():
    named = {entry.block.__name__ for entry in BLOCKS}
    assert named - TUTORIALS == {one.block for one in ORIGINALS} & named


def oracles(block):
    """The tests in the block's own test file that are marked as its oracle."""
    name = getattr(flax_attn, block).__module__.rpartition(".")[2]
    tests = vars(importlib.import_module(f".blocks.test_{name}", __package__)).values()
    marks = [(test, mark) for test in tests for mark in getattr(test, "pytestmark", ())]
    return [test for test, mark in marks if mark.name == "oracle" and block in mark.args]


# Published in repositories alone, which CI does not have.
@pytest.mark.parametrize("block", sorted({one.block for one in ORIGINALS} - {one.block for one in IN_PACKAGES}))
def test_a_block_without_a_package_has_an_oracle(block):
    assert oracles(block)


# Their authors' files import one another; tests/networks/test_resnet.py reads what they save.
OF_REPOSITORIES = {"ECANet.ResNet", "attention-module.ResNet"}


def test_every_table_of_names_is_used():
    assert {one.names for one in ORIGINALS} - {""} == set(NAMES) - OF_REPOSITORIES


def test_only_originals_have_bounds_of_their_own():
    assert set(tolerances.ORIGINALS) <= {one.name for one in ORIGINALS}


@pytest.mark.parametrize("original", ORIGINALS, ids=lambda original: original.name)
def test_arguments_are_those_of_the_class(original):
    inspect.signature(class_of(original)).bind(**original.args, rngs=None)


FILE = """
import torch

class Gate(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(1, 1, 5, padding=2, bias=False)

    def forward(self, x):
        return x * self.conv(x.mean((2, 3))[:, None]).sigmoid()[:, 0, :, None, None]
"""


def test_a_file_of_a_repository(capsys, monkeypatch, tmp_path):
    (tmp_path / "gate.py").write_text(FILE)
    fake = Original("EfficientChannelAttention", {"kernel_size": 5}, "owner/name/gate.py:Gate")
    monkeypatch.setattr("torch_ref.originals.ORIGINALS", (fake,))
    assert main(["originals", "EfficientChannelAttention", "--file", str(tmp_path / "gate.py")]) == 0
    assert "EfficientChannelAttention, owner/name/gate.py:Gate: worst error" in capsys.readouterr().out
    assert main(["originals", "EfficientChannelAttention", "--file", "no/such/file.py"]) == 2
    assert "there must be a Python file at no/such/file.py, got none" in capsys.readouterr().err


def test_an_error_is_found(capsys, monkeypatch):
    wrong = Original("EfficientChannelAttention", {"channels": 256}, "timm.layers:CecaModule", {"channels": 256})
    monkeypatch.setattr("torch_ref.originals.ORIGINALS", (wrong,))
    assert main(["originals"]) == 2  # the channels of the input are others
    assert main(["originals", "CBAM"]) == 2
    assert "NAME must be a class with an original in a package" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "gradient", "status"), [(1e-7, 0, 1), (1e-13, 4e-9, 0), (0, 6e-9, 1), (0, np.nan, 1)]
)
def test_each_error_has_its_own_bound(capsys, monkeypatch, output, gradient, status):
    errors = {"eval: output[0]": output, "eval: input[0] gradient": gradient, "eval: fc.bias gradient": 0.0}
    monkeypatch.setattr("torch_ref.originals.check.differences", lambda *_: errors)
    hard = next(one for one in IN_PACKAGES if one.name == "EffectiveSqueezeExcite, timm.layers:EffectiveSEModule")
    monkeypatch.setattr("torch_ref.originals.ORIGINALS", (hard,))
    assert main(["originals"]) == status
    name = "output[0]" if output > gradient else "input[0] gradient"
    assert f"worst error {errors[f'eval: {name}']:.1e} (eval: {name}), at most" in capsys.readouterr().out
