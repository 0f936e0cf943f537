"""Loads a trained network, and gets its outputs and all that its blocks record in one pass."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import flax_attn
from flax_attn.networks.patch import PatchNetwork

from ..config import ClassesConfig, PatchConfig
from ..data.feed import eval_batches
from ..devices import Layout
from ..runs import DATA, read_config, read_json
from ..tasks.classes import build_resnet
from ..tasks.patch import build_network

Named = dict[str, jax.Array]
Split = tuple[nnx.GraphDef[Any], nnx.State[Any, Any]]  # of a network
Call = Callable[[Split, np.ndarray, Layout], Mapping[str, Any]]


class Observed(NamedTuple):
    """What a network makes of a batch of images, in float32."""

    answer: jax.Array  # the probabilities of a patch, (b,), or a ResNet's logits, (b, classes)
    attended: jax.Array  # (b, h, w, c), behind all attention
    activation: jax.Array  # (b, h, w), the contribution of every place to the largest logit, which is its mean
    recorded: Named  # by path, see `flax_attn.attention_maps`


@jax.jit
def observe(model: Split, x: jax.Array) -> Observed:
    """Applies a network, taken apart by `nnx.split`, in eval mode to the images (b, h, w, 3) that a step would draw.

    The activation is that of Zhou, Khosla, Lapedriza, Oliva & Torralba, "Learning deep features for discriminative
    localization", CVPR 2016.
    """
    network: Any = nnx.merge(*model, copy=True)
    network.eval()
    last: Any
    if isinstance(network, PatchNetwork):
        (answer, attended), last, largest = network(x), network.final, 0
    else:
        attended, last = network.features(x), network.fc
        answer = last(jnp.mean(attended, axis=(1, 2)))
        largest = answer.argmax(-1)[:, None, None]
    answer, attended = answer.astype(jnp.float32), attended.astype(jnp.float32)
    # Not a matrix product: some devices round those.
    activation = jnp.sum(attended * last.kernel[...].T[largest], axis=-1) + last.bias[largest]
    return Observed(answer, attended, activation, recorded_of(network, x))


def recorded_of(network: nnx.Module, x: jax.Array) -> Named:
    """What blocks record when a network is applied, by path, in float32; XLA merges this with another call."""
    return {path: array.astype(jnp.float32) for path, array in flax_attn.attention_maps(network, x).items()}


def over_batches(network: nnx.Module, records: range, batch_size: int, call: Call) -> dict[str, np.ndarray]:
    """The arrays (n, ...) of all records by name, from ``call(model, indices, layout)`` for each batch."""
    layout = Layout(batch_size)
    graph, state = nnx.split(network)
    model = graph, layout.copy(state)
    parts: dict[str, list[np.ndarray]] = {}
    for indices, real in eval_batches(records, batch_size):
        for name, array in call(model, indices, layout).items():
            parts.setdefault(name, []).append(np.asarray(array)[real])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def load_run(folder: str | Path) -> tuple[PatchConfig | ClassesConfig, Any, tuple[int, int]]:
    """Loads the options of a run of the patch or classes task, the network in eval mode, and images' height and width.

    Raises ``ValueError`` or ``FileNotFoundError`` where there is none, or none that has finished.
    """
    folder = Path(folder)
    config = read_config(folder)
    if not isinstance(config, PatchConfig | ClassesConfig):
        raise ValueError(f"{folder} must hold a run of --task patch or classes, got one of --task {config.task}")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"{folder} must hold a finished run, got one without {weights.name}")
    data = read_json(folder / DATA)
    height, width = data["image_size"]
    network: Any
    if isinstance(config, PatchConfig):
        network = build_network(config, height, width)
    else:
        network = build_resnet(config, len(data["classes"]))
    try:
        flax_attn.from_torch(network, weights)
    except (ValueError, OSError) as error:
        raise ValueError(f"{weights} must hold the weights of the network in config.json: {error}") from None
    network.eval()
    return config, network, (height, width)
