"""Collects the attention weights and gates of all blocks in a module, without modifying it.

Blocks pass their weights and gates to `record`, which does nothing unless the call runs under `attention_maps`. Blocks
for which this means extra computation check `is_recording` first.
"""

from typing import Any

import jax
from flax import nnx

from .._tree import submodules


class AttentionMap(nnx.Intermediate[Any]):
    """The values a block has recorded: one per call, by name."""


_STORE = "recorded_attention_maps"


def is_recording(module: nnx.Module) -> bool:
    """Whether the current call of ``module`` runs under `attention_maps`."""
    return hasattr(module, _STORE)


def record(module: nnx.Module, name: str, value: jax.Array) -> None:
    """Stores ``value`` under ``name`` if the call runs under `attention_maps`."""
    if is_recording(module):
        store = getattr(module, _STORE)
        recorded = store.get_value()
        store.set_value({**recorded, name: (*recorded.get(name, ()), value)})


def attention_maps(module: nnx.Module, *inputs: Any, **kwargs: Any) -> dict[str, jax.Array]:
    """Calls ``module(*inputs, **kwargs)`` and returns every attention weight and gate inside it.

    Args:
        module: Any module. It runs in its current mode and is left unchanged, including running statistics and random
            streams.
        *inputs: Positional arguments of the call.
        **kwargs: Keyword arguments of the call.

    Returns:
        A dictionary of arrays, keyed by the block's dotted path (as in PyTorch) followed by the map's name. Token
        attention records ``weights`` (b, heads, n_query, n_key); gates record ``gate``, broadcastable to (b, h, w, c).
        A block called several times in one pass records ``name.0``, ``name.1``, ...

    Raises:
        ValueError: If ``module`` is not an ``nnx.Module``.

    Example:
        >>> from flax_attn import CBAM
        >>> cbam = CBAM(8, 4, no_spatial=False, rngs=nnx.Rngs(0))
        >>> {path: gate.shape for path, gate in attention_maps(cbam, jax.numpy.ones((2, 5, 7, 8))).items()}
        {'channel_gate.gate': (2, 1, 1, 8), 'spatial_gate.gate': (2, 5, 7, 1)}
    """
    if not isinstance(module, nnx.Module):
        raise ValueError(f"module must be an nnx.Module, got {type(module).__name__}")
    copy = nnx.clone(module)
    stores = []
    for path, inner in submodules(copy):
        if not isinstance(inner, nnx.List | nnx.Dict):
            setattr(inner, _STORE, AttentionMap({}))
            stores.append((path, inner))
    copy(*inputs, **kwargs)
    maps = {}
    for path, inner in stores:
        for name, calls in getattr(inner, _STORE).get_value().items():
            here = f"{path}.{name}".lstrip(".")
            maps.update({here: calls[0]} if len(calls) == 1 else {f"{here}.{i}": call for i, call in enumerate(calls)})
    return maps
