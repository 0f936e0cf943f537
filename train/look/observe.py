"""What a trained network computes and records for a batch, in one pass; and a trained network from its run folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import flax_attn
from flax_attn import ops
from flax_attn.networks.patch import PatchNetwork

from ..config import Config
from ..runs import DATA, read_config, read_json
from ..tasks.patch import build_network
from .maps import class_activation

# Token weights grow with the fourth power of an image's side: those of one 256x256 image in 4 heads take 256 MiB.
MOST_BYTES = 2**29
SIZE = (96, 96)  # of the images of a run whose folder does not say

Named = dict[str, jax.Array]


class Observed(NamedTuple):
    """What a network makes of a batch, in float32.

    Attributes:
        p: (b,), the probability of a patch.
        attended: (b, h, w, c), the attended map.
        activation: (b, h, w), the class activation map.
        recorded: what blocks recorded, by path; see `flax_attn.attention_maps`.
    """

    p: jax.Array
    attended: jax.Array
    activation: jax.Array
    recorded: Named


def observe(network: PatchNetwork, x: jax.Array) -> Observed:
    """Applies ``network`` in eval mode to images (b, h, w, 3); the network itself is left unchanged."""
    return _observe(*nnx.split(network), x)


def observe_inside(network: PatchNetwork, x: jax.Array) -> Observed:
    """`observe` inside a compiled function; switches ``network`` to eval mode."""
    results, recorded = record_all(network, lambda network, x: dict(zip(("p", "attended"), network(x), strict=True)), x)
    activation = class_activation(results["attended"], network.final.kernel[:, 0], network.final.bias[0])
    return Observed(results["p"], results["attended"], activation, recorded)


@jax.jit
def _observe(graph: nnx.GraphDef[PatchNetwork], state: nnx.State, x: jax.Array) -> Observed:
    return observe_inside(nnx.merge(graph, state, copy=True), x)


def at_once(network: PatchNetwork, height: int, width: int, most: int) -> int:
    """How many images of a size, up to ``most``, can be observed together before their records take too much memory."""
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    recorded = jax.eval_shape(_observe, *nnx.split(network), image).recorded
    each = sum(array.size * array.dtype.itemsize for array in recorded.values())
    return max(1, min(most, MOST_BYTES // max(each, 1)))


class _Recorder(nnx.Module):
    """Records a function's results beside what the blocks of a network record."""

    def __init__(self, network: nnx.Module, function: Callable[[Any, jax.Array], Named]) -> None:
        self.network, self.function = network, function

    def __call__(self, x: jax.Array) -> None:
        for name, result in self.function(self.network, x).items():
            ops.record(self, name, result)


def record_all(network: nnx.Module, function: Callable[[Any, jax.Array], Named], x: jax.Array) -> tuple[Named, Named]:
    """The results of ``function(network, x)`` in eval mode and what blocks record meanwhile, all in float32."""
    network.eval()
    maps = flax_attn.attention_maps(_Recorder(network, function), x)
    seen = {path: array.astype(jnp.float32) for path, array in maps.items()}
    recorded = {path.removeprefix("network."): seen.pop(path) for path in list(seen) if path.startswith("network.")}
    return seen, recorded


class TrainedRun(NamedTuple):
    """The configuration of a run, its network in eval mode, and the size of its images."""

    config: Config
    network: PatchNetwork
    height: int
    width: int


def load_run(folder: str | Path) -> TrainedRun:
    """Loads a finished run of the patch task.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
        ValueError: an unfinished run, another task's, or a file that does not fit.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config.task != "patch":
        raise ValueError(f"{folder} must hold a run of --task patch, got one of --task {config.task}")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"{folder} must hold a finished run, got one without {weights.name}")
    height, width = _image_size(folder / DATA)
    network = build_network(config, height, width)
    try:
        flax_attn.from_torch(network, weights)
    except (ValueError, OSError) as error:
        raise ValueError(f"{weights} must hold the weights of the network in config.json: {error}") from None
    network.eval()
    return TrainedRun(config, network, height, width)


def _image_size(path: Path) -> tuple[int, int]:
    size = read_json(path).get("image_size") if path.is_file() else list(SIZE)
    if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and n >= 16 for n in size)):
        raise ValueError(f"{path}: image_size must be two whole numbers >= 16, got {size!r}")
    return size[0], size[1]
