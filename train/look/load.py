"""A trained network from its run folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import flax_attn
from flax_attn.networks.patch import PatchNetwork

from ..config import Config, check
from ..networks import build_network
from .ending import SCORES

SIZE = (96, 96)  # of the images, where a folder does not say


class TrainedRun(NamedTuple):
    """A run's configuration, its network in eval mode, and the size of the images it was trained on."""

    config: Config
    network: PatchNetwork
    height: int
    width: int


def load_run(folder: str | Path) -> TrainedRun:
    """Reads ``config.json``, ``model.safetensors`` and the size of the images in ``localisation.json``.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
        ValueError: the run is not finished, its configuration is not one, or its weights do not fit.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"RUN must be the folder of a run, got {folder}: no such folder")
    config = _config(folder / "config.json")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"{folder} holds no {weights.name}: the run is not finished")
    height, width = _image_size(folder / SCORES)
    network = build_network(config, height, width)
    try:
        flax_attn.from_torch(network, weights)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{weights} is no file of weights for {config.network} as config.json has it: {error}"
        ) from None
    network.eval()
    return TrainedRun(config, network, height, width)


def _config(path: Path) -> Config:
    if not path.is_file():
        raise FileNotFoundError(f"RUN must be the folder of a run, got {path.parent}: there is no {path.name} in it")
    values = _read(path)
    names = {field.name for field in dataclasses.fields(Config)}
    for problem, keys in (("unknown", values.keys() - names), ("missing", names - values.keys())):
        if keys:
            raise ValueError(f"{path} must hold the options of a run, {problem}: {', '.join(sorted(keys))}")
    for name, hint in get_type_hints(Config).items():
        if not _fits(values[name], hint):
            raise ValueError(f"{path}: {name} must be {_described(hint)}, got {values[name]!r}")
    config = Config(**values)
    try:
        check(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return config


def _image_size(path: Path) -> tuple[int, int]:
    if not path.is_file():
        return SIZE
    size = _read(path).get("image_size")
    if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and n >= 16 for n in size)):
        raise ValueError(f"{path}: image_size must be two whole numbers of at least 16, got {size!r}")
    return size[0], size[1]


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be readable JSON, got: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(values).__name__}")
    return values


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is one of an option's."""
    if get_origin(hint) is not None and type(None) not in get_args(hint):  # Literal
        return value in get_args(hint)
    kinds = get_args(hint) or (hint,)
    return type(value) in kinds or (float in kinds and type(value) is int)


def _described(hint: Any) -> str:
    return " or ".join(getattr(kind, "__name__", str(kind)) for kind in get_args(hint) or (hint,))
