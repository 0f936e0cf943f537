"""A trained network from its run folder."""

from pathlib import Path
from typing import NamedTuple

import flax_attn
from flax_attn.networks.patch import PatchNetwork

from ..config import Config
from ..networks import build_network
from ..runs import DATA, read_config, read_json

SIZE = (96, 96)  # of the images, where a folder does not say


class TrainedRun(NamedTuple):
    """A run's configuration, its network in eval mode, and the size of the images it was trained on."""

    config: Config
    network: PatchNetwork
    height: int
    width: int


def load_run(folder: str | Path) -> TrainedRun:
    """Reads ``config.json``, ``model.safetensors`` and the size of the images in ``data.json``.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
        ValueError: the run is not finished, its configuration is not one, or its weights do not fit.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config.task != "patch":
        raise ValueError(f"{folder} must hold a run of --task patch to be looked at, got one of --task {config.task}")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"{folder} holds no {weights.name}: the run is not finished")
    height, width = _image_size(folder / DATA)
    network = build_network(config, height, width)
    try:
        flax_attn.from_torch(network, weights)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{weights} is no file of weights for {config.network} as config.json has it: {error}"
        ) from None
    network.eval()
    return TrainedRun(config, network, height, width)


def _image_size(path: Path) -> tuple[int, int]:
    if not path.is_file():
        return SIZE
    size = read_json(path).get("image_size")
    if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and n >= 16 for n in size)):
        raise ValueError(f"{path}: image_size must be two whole numbers of at least 16, got {size!r}")
    return size[0], size[1]
