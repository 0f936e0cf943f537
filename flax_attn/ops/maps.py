"""Attention maps on request: every weight and gate inside a module, without a trace of it left behind.

A block calls `record` with whatever it would like to show. That costs nothing unless the call runs under
`attention_maps`; a block that has to compute more to have something to show asks `is_recording` first.
"""

from typing import Any

import jax
from flax import nnx

from .._tree import submodules


class AttentionMap(nnx.Intermediate[Any]):
    """What a block has recorded: by name, the value of every call."""


_STORE = "recorded_attention_maps"


def is_recording(module: nnx.Module) -> bool:
    """Whether the current call of ``module`` runs under `attention_maps`."""
    return hasattr(module, _STORE)


def record(module: nnx.Module, name: str, value: jax.Array) -> None:
    """Keeps ``value`` under ``name`` for the caller of `attention_maps`, if there is one."""
    if is_recording(module):
        store = getattr(module, _STORE)
        recorded = store.get_value()
        store.set_value({**recorded, name: (*recorded.get(name, ()), value)})


def attention_maps(module: nnx.Module, *inputs: Any, **kwargs: Any) -> dict[str, jax.Array]:
    """Calls ``module(*inputs, **kwargs)`` and returns every attention weight and gate inside it.

    Args:
        module: any module; it is called in the mode it is in and left exactly as it was (running statistics and
            random streams included).
        *inputs: what the module takes.
        **kwargs: keyword arguments of the call.

    Returns:
        A dictionary from the dotted path of the block (as PyTorch has it) and the map's name to the array. Token
        attention gives ``weights`` (b, heads, n_query, n_key), gates give ``gate`` in a shape that broadcasts against
        (b, h, w, c).
        A block that is called several times in one pass gives ``name.0``, ``name.1``, ...

    Raises:
        ValueError: ``module`` is no module.

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
