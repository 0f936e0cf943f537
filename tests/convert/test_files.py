"""State_dicts in files: errors of the machine propagate, a bad file is reported as one."""

import argparse
import collections
import errno
import json
import pickle
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_model

from flax_attn.convert import files


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"not a checkpoint at all")
    return path


@pytest.fixture
def failing(monkeypatch):
    def set_error(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("torch.load", fail)

    return set_error


@pytest.mark.parametrize(
    "error",
    [MemoryError("too large"), OSError(errno.EIO, "broken disk"), OSError(errno.EMFILE, "too many files")],
    ids=["memory", "an errno below EINVAL", "an errno above EINVAL"],
)
def test_what_the_machine_cannot_do_is_no_fault_of_the_file(path, failing, error):
    failing(error)
    with pytest.raises(type(error)) as raised:
        files.read(path)
    assert raised.value is error


def test_a_place_before_the_start_of_the_file_is_a_fault_of_the_file(path, failing):
    failing(OSError(errno.EINVAL, "invalid argument"))
    with pytest.raises(ValueError, match=r"which is damaged or cut short: .*invalid argument"):
        files.read(path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("first line\nsecond line"), "is damaged or cut short: first line"),
        (RuntimeError(), "is damaged or cut short: RuntimeError"),
        (
            pickle.UnpicklingError("first line\nsecond line"),
            "is damaged or would run code when unpickled: first line",
        ),
        (
            pickle.UnpicklingError("first line"),
            "is damaged or would run code when unpickled: first line",
        ),
        (
            pickle.UnpicklingError("first line\n  WeightsUnpickler error: refused. Do this. Or that.\nlast line"),
            "is damaged or would run code when unpickled: WeightsUnpickler error: refused",
        ),
    ],
)
def test_of_pytorchs_message_the_telling_sentence_is_shown(path, failing, error, reason):
    failing(error)
    with pytest.raises(ValueError) as raised:
        files.read(path)
    assert str(raised.value).endswith(f"weights.pt', which {reason}")


def test_a_pickle_without_pytorch_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ImportError, match=r"weights\.pt' needs PyTorch \(flax_attn\[torch\]\): pip install torch, or save it"
    ):
        files.read(path)


@pytest.mark.parametrize("suffix", [".npz", ".zip", ""])
def test_other_suffixes_are_not_written(tmp_path, suffix):
    with pytest.raises(ValueError, match=r"path must end in \.safetensors, \.pt or \.pth, got"):
        files.write(tmp_path / f"weights{suffix}", {"weight": np.ones(3)})
    assert list(tmp_path.iterdir()) == []


WEIGHTS = {"weight": np.arange(15, dtype=np.float32).reshape(5, 3), "bias": np.arange(5, dtype=np.float32)}
TENSORS = {name: torch.from_numpy(array) for name, array in WEIGHTS.items()}
WRITERS = {
    "safetensors": lambda path: save_file(WEIGHTS, path),
    "torch.save": lambda path: torch.save(TENSORS, path),
    "torch.save of old": lambda path: torch.save(TENSORS, path, _use_new_zipfile_serialization=False),
    "OrderedDict": lambda path: torch.save(collections.OrderedDict(TENSORS), path),
}


@pytest.mark.parametrize("suffix", [".pth.tar", ".ckpt", ".bin", ".model", ".safetensors", ".pt", ""])
@pytest.mark.parametrize("writer", WRITERS)
def test_the_content_decides_how_a_file_is_read(tmp_path, writer, suffix):
    path = tmp_path / f"weights{suffix}"
    WRITERS[writer](path)
    read = files.read(path)
    assert {name: np.asarray(value).tolist() for name, value in read.items()} == {
        name: array.tolist() for name, array in WEIGHTS.items()
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"\n<html><body>", "is a web page"),
        (b"<?xml version='1.0'?><Error/>", "is a web page"),
        (b'{"config": 1}', "is JSON, but no index of shards"),
        (b'{"weight_map": [1]}', "is JSON, but no index of shards"),
        (b'{"weight_map": {"a": "../b.bin"}}', r"names a shard in another folder, '\.\./b\.bin'"),
        (b"", "is damaged or cut short"),
        (b"\x93NUMPY\x01\x00", "is damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".bin"])
def test_files_of_other_kinds_are_called_by_their_name(tmp_path, content, reason, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"state_dict must be a file .*weights\{suffix}', which {reason}"):
        files.read(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"must be a file, got the folder .*of shards name the index"):
        files.read(tmp_path)


def test_shared_tensors_come_back_under_all_their_names(tmp_path):
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 5)})
    module["b"] = module["a"]
    save_model(module, str(tmp_path / "model.safetensors"))
    read = files.read(tmp_path / "model.safetensors")
    assert {name: value.shape for name, value in read.items()} == {
        name: tuple(value.shape) for name, value in module.state_dict().items()
    }
    assert (read["a.weight"] == read["b.weight"]).all()


@pytest.mark.parametrize(("writer", "suffix"), [("safetensors", ".safetensors"), ("torch.save", ".bin")])
def test_shards(tmp_path, writer, suffix):
    shards = {name: f"model-0000{place}-of-00002{suffix}" for place, name in enumerate(WEIGHTS, 1)}
    for name, shard in shards.items():
        if writer == "safetensors":
            save_file({name: WEIGHTS[name]}, tmp_path / shard)
        else:
            torch.save({name: TENSORS[name]}, tmp_path / shard)
    index = tmp_path / f"model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 80}, "weight_map": shards}))
    assert all((np.asarray(value) == WEIGHTS[name]).all() for name, value in files.read(index).items())

    index.write_text(json.dumps({"weight_map": {**shards, "scale": shards["bias"]}}))
    with pytest.raises(ValueError, match=rf"names entries that its shards lack: scale of {shards['bias']}"):
        files.read(index)
    (tmp_path / shards["bias"]).unlink()
    with pytest.raises(FileNotFoundError, match=shards["bias"]):
        files.read(index)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("beside", "names", "advice"),
    [
        (np.float64(0.5), "numpy", r"float\(\), int\(\) or torch\.tensor\(\)"),
        (np.ones(3), "numpy", r"float\(\), int\(\) or torch\.tensor\(\)"),
        (argparse.Namespace(lr=1), r"argparse\.Namespace", r"weights_only=False\) and save its state_dict alone"),
        (torch.nn.ReLU(), r"torch\.nn\.modules\.activation\.ReLU", r"save module\.state_dict\(\), not the module"),
    ],
    ids=["numpy scalar", "numpy array", "options", "module"],
)
def test_objects_beside_the_weights_are_named_with_the_way_out(tmp_path, beside, names, advice, zipped):
    path = tmp_path / "checkpoint.ckpt"
    torch.save({"state_dict": TENSORS, "beside": beside}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=rf"would run code when unpickled: {names}.*{advice}"):
        files.read(path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "bool"])
def test_what_is_written_is_read_with_its_dtype(tmp_path, suffix, dtype):
    import jax.numpy as jnp

    arrays = {"a": np.arange(6).reshape(2, 3).T.astype(jnp.dtype(dtype)), "count": np.array(3).astype(jnp.dtype(dtype))}
    files.write(tmp_path / f"weights{suffix}", arrays)
    read = files.read(tmp_path / f"weights{suffix}")
    for name, array in arrays.items():
        assert str(read[name].dtype).removeprefix("torch.") == dtype
        assert tuple(read[name].shape) == array.shape
        value = read[name].float().numpy() if suffix != ".safetensors" else read[name]
        np.testing.assert_array_equal(np.asarray(value, np.float32), array.astype(np.float32))
