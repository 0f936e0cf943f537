"""State_dicts in files: safetensors, and whatever ``torch.save`` wrote, without running code in them.

The content of a file decides how it is read, not its suffix. Every format may be split into shards with an index, a
JSON file that says which shard holds an entry.
"""

import errno
import json
import os
import pickle
import re
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

PICKLES = (".pt", ".pth")  # suffixes that are written by torch.save
SAVE_AGAIN = (
    "if you trust it, load it once with torch.load(path, weights_only=False) and save its state_dict alone with "
    "torch.save(state_dict, path)"
)


def read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Reads a state_dict, or what a checkpoint holds beside it.

    Raises:
        FileNotFoundError: no such file, or a shard is missing.
        ValueError: a file of another kind, a damaged file, or a pickle of more than tensors.
        ImportError: a pickle, and no PyTorch to read it.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"state_dict must be a file, got the folder {str(path)!r}; of shards name the index (.json)")
    if not path.is_file():
        raise FileNotFoundError(f"state_dict must be an existing file, got {str(path)!r}")
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"version https://git-lfs"):
        _refuse(path, "is a Git LFS pointer, not the file itself: git lfs pull fetches it")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        _refuse(path, "is a web page: the download failed")
    pickled = head.startswith((b"PK", b"\x80"))  # a zip archive, and the older format
    if head[8:9] == b"{" or (path.suffix == ".safetensors" and not pickled):  # behind the length of the header
        return _read_safetensors(path)
    if head[:1] == b"{":
        return _read_shards(path)
    return _read_pickle(path)


def _refuse(path: Path, what: str) -> NoReturn:
    raise ValueError(f"state_dict must be a file of safetensors or of torch.save, got {str(path)!r}, which {what}")


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            # safetensors.torch.save_model writes one of the names of a shared tensor, and the others here.
            shared = {name: kept for name, kept in (file.metadata() or {}).items() if name not in tensors}
        return {**tensors, **{name: tensors[kept] for name, kept in shared.items() if kept in tensors}}
    except OSError:
        raise
    except (SafetensorError, AttributeError, KeyError, TypeError) as error:  # the latter for dtypes that NumPy lacks
        raise ValueError(
            f"state_dict must be a whole .safetensors file of dtypes that numpy has, got {str(path)!r}: {error}"
        ) from error


def _read_shards(index: Path) -> Mapping[str, Any]:
    try:
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = {name: str(shard) for name, shard in where.items()}
    except (ValueError, KeyError, AttributeError, TypeError):
        _refuse(index, "is JSON, but no index of shards, which has a 'weight_map' from names to files")
    shards: dict[str, Mapping[str, Any]] = {}
    for shard in dict.fromkeys(names.values()):
        if Path(shard).name != shard:
            _refuse(index, f"names a shard in another folder, {shard!r}")
        shards[shard] = read(index.parent / shard)
    missing = [f"{name} of {shard}" for name, shard in names.items() if name not in shards[shard]]
    if missing:
        _refuse(index, f"names entries that its shards lack: {', '.join(missing)}")
    return {name: shards[shard][name] for name, shard in names.items()}


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {str(path)!r} needs PyTorch (flax_attn[torch]): pip install torch, or save it as .safetensors"
        ) from error
    try:
        with warnings.catch_warnings(), path.open("rb") as file:  # of a path, torch would look at the suffix
            warnings.simplefilter("ignore")  # about TorchScript, which is an error below
            loaded: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
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
        objects = re.findall(r"GLOBAL (\S+) was not an allowed global", str(error))
    if objects:
        return f"holds other objects and would run code when unpickled: {', '.join(objects)}; {_advice(objects)}"
    if "TorchScript" in str(error):
        return "is a TorchScript archive and would run code when loaded; save module.state_dict(), not the module"
    if isinstance(error, pickle.UnpicklingError):
        reason = next((line for line in lines if "WeightsUnpickler" in line), lines[0])
        return f"is damaged or would run code when unpickled: {reason.strip().split('. ')[0]}"
    return f"is damaged or cut short: {lines[0]}"


def _advice(objects: list[str]) -> str:
    """How to save a file again whose pickle names ``objects``."""
    if all(name.startswith("numpy") for name in objects):
        return (
            f"they are NumPy's, which float(), int() or torch.tensor() turn into plain ones before saving; {SAVE_AGAIN}"
        )
    if any(".modules." in name for name in objects):
        return "save module.state_dict(), not the module"
    return SAVE_AGAIN


def write(path: str | os.PathLike[str], state_dict: Mapping[str, np.ndarray]) -> None:
    """Writes a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file as ``torch.save`` does, whole or not at all.

    Raises:
        ValueError: another suffix.
        FileNotFoundError: no such folder.
        ImportError: a ``.pt`` or ``.pth`` file, and no PyTorch to write it.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", *PICKLES):
        raise ValueError(f"path must end in .safetensors, .pt or .pth, got {str(path)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path must be in an existing folder, got {str(path)!r}")
    save: Callable[[Path], object] = _saver(path, state_dict)
    target = path.resolve()  # a link is followed, as writing in place would
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        save(partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _saver(path: Path, state_dict: Mapping[str, np.ndarray]) -> Callable[[Path], object]:
    if path.suffix in PICKLES:
        import torch

        tensors = to_tensors(state_dict)
        return lambda partial: torch.save(tensors, partial)
    from safetensors.numpy import save

    # The format stores raw memory: a transposed view must be copied to an array first.
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in state_dict.items()}
    return lambda partial: partial.write_bytes(save(arrays, metadata={"format": "pt"}))


def to_tensors(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Copies arrays to tensors of the same dtype; raises ``ImportError`` without PyTorch."""
    try:
        import torch
    except ImportError as error:
        raise ImportError("tensors need PyTorch (flax_attn[torch]): pip install torch") from error
    return {
        # NumPy's bfloat16 is an extension that PyTorch does not know.
        name: torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
        if str(array.dtype) == "bfloat16"
        else torch.from_numpy(array.copy())
        for name, array in state_dict.items()
    }
