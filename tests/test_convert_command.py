"""``python -m flax_attn convert``, as a user calls it."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import flax_attn.__main__
from torch_ref.blocks.cbam import CBAM


def convert(*words):
    return flax_attn.__main__.main(["convert", *map(str, words)])


def test_names_and_container_change_and_values_do_not(tmp_path, capsys):
    twin = CBAM(8, 4, no_spatial=False)
    theirs = {name.replace("channel_gate", "ChannelGate"): tensor for name, tensor in twin.state_dict().items()}
    theirs = {
        f"module.{name.replace('spatial_gate', 'SpatialGate')}": tensor.bfloat16() for name, tensor in theirs.items()
    }
    torch.save({"state_dict": theirs, "epoch": 3}, tmp_path / "in.pth.tar")
    assert convert(tmp_path / "in.pth.tar", tmp_path / "out.safetensors", "--rename", "official") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out.safetensors'}: {len(theirs)} entries\n"
    written = load_file(tmp_path / "out.safetensors")
    assert list(written) == sorted(twin.state_dict())
    for name, tensor in twin.state_dict().items():
        assert str(written[name].dtype) == "bfloat16"
        np.testing.assert_array_equal(written[name].astype(np.float32), tensor.bfloat16().float().numpy())

    assert convert(tmp_path / "out.safetensors", tmp_path / "back.pt", "--rename", "channel_gate=gate") == 0
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["gate.mlp.1.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["missing.pt", "out.pt"], "must be an existing file"),
        (["in.safetensors", "in.safetensors"], "must be new"),
        (["in.safetensors", "out.npz"], "must end in"),
        (["in.safetensors", "nowhere/out.pt"], "in an existing folder"),
        (["in.safetensors", "out.pt", "--key", "model"], "key must name an entry"),
        (["in.safetensors", "out.pt", "--rename", "tutorials"], "got 'tutorials'; did you mean 'tutorial'?"),
        (["in.safetensors", "out.pt", "--rename", "a=b"], "rename must give different names"),
        (
            ["object.pt", "out.pt"],
            "must hold arrays that NumPy has, got others: sparse, meta, eight, epoch",
        ),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, monkeypatch, capsys, words, reason):
    monkeypatch.chdir(tmp_path)
    save_file({"a": np.ones(3), "b": np.ones(3)}, "in.safetensors")
    others = {
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.ones(3, device="meta"),
        "eight": torch.ones(3).to(torch.float8_e4m3fn),
        "epoch": 3,
    }
    torch.save({"a": torch.ones(3), **others}, "object.pt")
    before = sorted(tmp_path.iterdir())
    assert convert(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert reason in error
    assert sorted(tmp_path.iterdir()) == before


def test_conjugated_numbers_are_written_as_they_read(tmp_path, capsys):
    torch.save({"z": torch.tensor([1 + 2j]).conj()}, tmp_path / "in.pt")
    assert convert(tmp_path / "in.pt", tmp_path / "out.pt") == 0
    assert capsys.readouterr().out.endswith(": 1 entry\n")
    assert torch.load(tmp_path / "out.pt", weights_only=True)["z"].tolist() == [1 - 2j]


def test_help_names_the_command(capsys):
    with pytest.raises(SystemExit) as stop:
        flax_attn.__main__.main(["--help"])
    assert stop.value.code == 0
    assert "convert" in capsys.readouterr().out
