"""Every block and network by its cases, and every layer: how it is built, and what it is called with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flax_attn import layers
from flax_attn.testing.layouts import to_flax
from torch_ref.cases import CASES, COLLECTION, Case
from torch_ref.pairs import build, draw


@dataclass(frozen=True)
class Every:
    """A module to try: ``build(rngs, **options)``, its inputs as NumPy arrays, and keyword arguments of the call."""

    name: str
    build: Callable[..., nnx.Module]
    inputs: tuple[np.ndarray | None, ...]
    kwargs: dict[str, Any]
    folder: str
    is_collected: bool = False


def _of_case(case: Case) -> Every:
    rng = np.random.default_rng(0)
    inputs = tuple(
        None if wanted.shape is None else np.asarray(to_flax(draw(wanted, rng), wanted.layout, "input"))
        for wanted in case.inputs
    )
    return Every(
        case.name,
        lambda rngs, **options: build(case, rngs, **options),
        inputs,
        case.kwargs,
        case.module,
        case in COLLECTION,
    )


def _of_layer(name: str, build: Callable[..., nnx.Module], *shape: int, copies: int = 1) -> Every:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, shape) if name == "Embedding" else rng.standard_normal(shape).astype(np.float32)
    return Every(name, build, (x,) * copies, {}, "layers")


LAYERS = (
    _of_layer("AdaptiveAvgPool", lambda rngs, **o: layers.AdaptiveAvgPool((3, 1)), 2, 7, 5, 3),
    _of_layer("AvgPool", lambda rngs, **o: layers.AvgPool(3, 2, 1, count_include_pad=False), 2, 7, 5, 3),
    _of_layer("BatchNorm", lambda rngs, **o: layers.BatchNorm(3, rngs=rngs, **o), 2, 7, 5, 3),
    _of_layer("Conv", lambda rngs, **o: layers.Conv(3, 5, (3, 3), padding=1, stride=2, rngs=rngs, **o), 2, 7, 5, 3),
    _of_layer("ConvTranspose", lambda rngs, **o: layers.ConvTranspose(3, 5, 3, 2, 1, 1, rngs=rngs, **o), 2, 7, 5, 3),
    _of_layer("Dropout", lambda rngs, **o: layers.Dropout(0.3, rngs=rngs), 2, 7, 3),
    _of_layer("Embedding", lambda rngs, **o: layers.Embedding(3, 5, rngs=rngs, **o), 2, 7),
    _of_layer("GELU", lambda rngs, **o: layers.GELU(), 2, 7, 3),
    _of_layer("GroupNorm", lambda rngs, **o: layers.GroupNorm(2, 6, rngs=rngs, **o), 2, 7, 5, 6),
    _of_layer("LayerNorm", lambda rngs, **o: layers.LayerNorm(3, rngs=rngs, **o), 2, 7, 3),
    _of_layer("Linear", lambda rngs, **o: layers.Linear(3, 5, rngs=rngs, **o), 2, 7, 3),
    _of_layer("MaxPool", lambda rngs, **o: layers.MaxPool(3, 2, 1), 2, 7, 5, 3),
    _of_layer("RMSNorm", lambda rngs, **o: layers.RMSNorm(3, rngs=rngs, **o), 2, 7, 3),
    _of_layer(
        "MultiheadAttention",
        lambda rngs, **o: layers.MultiheadAttention(6, 2, 0.1, batch_first=True, rngs=rngs, **o),
        *(2, 7, 6),
        copies=3,
    ),
)
EVERY = (*map(_of_case, CASES), *LAYERS)


def differentiated(module: nnx.Module, one: Every, inputs: Any) -> Any:
    """Outputs, buffers, and the gradients of the parameters and inputs of ``module``, for a sum of its outputs."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    floats = {i: x for i, x in enumerate(inputs) if x is not None and jnp.issubdtype(x.dtype, jnp.floating)}

    def loss(params: Any, floats: dict[int, Any]) -> Any:
        module = nnx.merge(graphdef, params, rest, copy=True)
        outputs = module(*[floats.get(i, x) for i, x in enumerate(inputs)], **one.kwargs)
        total = sum(jnp.sum(jnp.sin(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(outputs))
        return total, (outputs, nnx.state(module, nnx.BatchStat))

    gradients, others = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, floats)
    return gradients, others
