"""State_dicts in files: ``.safetensors``, and PyTorch's ``.pt`` and ``.pth``, without running code in them."""

import errno
import os
import pickle
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PICKLES = (".pt", ".pth")


def read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Reads a state_dict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another suffix, a damaged file, or a pickle of more than tensors.
        ImportError: a pickle, and no PyTorch to read it.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", *PICKLES):
        raise ValueError(f"state_dict must be a .safetensors, .pt or .pth file, got {str(path)!r}")
    if not path.is_file():
        raise FileNotFoundError(f"state_dict must be an existing file, got {str(path)!r}")
    return _read_pickle(path) if path.suffix in PICKLES else _read_safetensors(path)


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except OSError:
        raise
    except (SafetensorError, AttributeError, KeyError) as error:  # the last two for dtypes that NumPy lacks
        raise ValueError(
            f"state_dict must be a whole .safetensors file of dtypes that numpy has, got {str(path)!r}: {error}"
        ) from error


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {str(path)!r} needs PyTorch (flax_attn[torch]): pip install torch, or save it as .safetensors"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript, which is an error below
            loaded: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded
    except Exception as error:  # torch raises half a dozen types for damaged and for refused files
        # EINVAL: a truncated directory sent the reader to an offset before the start of the file.
        if isinstance(error, OSError | MemoryError) and getattr(error, "errno", None) != errno.EINVAL:
            raise
        raise ValueError(
            f"state_dict must be a file of tensors alone, got {str(path)!r}, which {_fault(path, error)}"
        ) from error


def _fault(path: Path, error: Exception) -> str:
    """Describes the problem of a file that torch.load refused, without running code in it."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    lines = str(error).splitlines() or [type(error).__name__]
    try:
        objects = sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:  # it reads the current format of torch.save only
        objects = []
    if objects:
        return (
            f"holds other objects and would run code when unpickled: {', '.join(objects)}; "
            "save module.state_dict(), not the module"
        )
    if "TorchScript" in str(error):
        return "is a TorchScript archive and would run code when loaded; save module.state_dict(), not the module"
    if isinstance(error, pickle.UnpicklingError):
        reason = next((line for line in lines if "WeightsUnpickler" in line), lines[0])
        return f"is damaged or would run code when unpickled: {reason.strip().split('. ')[0]}"
    return f"is damaged or cut short: {lines[0]}"


def write(path: str | os.PathLike[str], state_dict: Mapping[str, np.ndarray]) -> None:
    """Writes a ``.safetensors`` file, whole or not at all.

    Raises:
        ValueError: another suffix.
        FileNotFoundError: no such folder.
    """
    from safetensors.numpy import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {str(path)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path must be in an existing folder, got {str(path)!r}")
    target = path.resolve()  # a link is followed, as writing in place would
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        # The format stores raw memory: a transposed view must be copied to an array first.
        partial.write_bytes(save({name: np.ascontiguousarray(array) for name, array in state_dict.items()}))
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
