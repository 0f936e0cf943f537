"""State_dicts in files: errors of the machine propagate, a bad file is reported as one."""

import errno
import pickle
import sys

import numpy as np
import pytest

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
def test_only_safetensors_are_written(tmp_path, suffix):
    with pytest.raises(ValueError, match=r"path must end in \.safetensors, got"):
        files.write(tmp_path / f"weights{suffix}", {"weight": np.ones(3)})
    assert list(tmp_path.iterdir()) == []
