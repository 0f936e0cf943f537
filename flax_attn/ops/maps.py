"""Attention maps on request: every weight and gate inside a module, without a trace of it left behind.

A block calls `record` with whatever it would like to show. That costs nothing unless the call runs under
`attention_maps`; a block that has to compute more to have something to show asks `is_recording` first.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import nnx


class AttentionMap(nnx.Intermediate[Any]):
    """What blocks record; a type of its own, so that other intermediates of a network are not taken for maps."""


def is_recording(module: nnx.Module) -> bool:
    """Whether the current call of ``module`` runs under `attention_maps`."""
    return any(isinstance(capture, AttentionMap) for capture in getattr(module, "__captures__", ()))


def record(module: nnx.Module, name: str, value: jax.Array) -> None:
    """Keeps ``value`` under ``name`` for the caller of `attention_maps`, if there is one."""
    if is_recording(module):
        module.sow(AttentionMap, name, value)


def attention_maps(module: nnx.Module, *inputs: Any, **kwargs: Any) -> dict[str, jax.Array]:
    """Calls ``module(*inputs, **kwargs)`` and returns every attention weight and gate inside it.

    Args:
        module: any module; it is called in the mode it is in and left exactly as it was (running statistics and
            random streams included).
        *inputs: what the module takes.
        **kwargs: keyword arguments of the call.

    Returns:
        A dictionary from the dotted path of the block and the map's name to the array. Token attention gives
        ``weights`` (b, heads, n_query, n_key), gates give ``gate`` in a shape that broadcasts against (b, h, w, c).
        A block that is called several times in one pass gives ``name.0``, ``name.1``, ...

    Example:
        >>> from flax_attn import CBAM
        >>> cbam = CBAM(8, 4, no_spatial=False, rngs=nnx.Rngs(0))
        >>> {path: gate.shape for path, gate in attention_maps(cbam, jax.numpy.ones((2, 5, 7, 8))).items()}
        {'channel_gate.gate': (2, 1, 1, 8), 'spatial_gate.gate': (2, 5, 7, 1)}
    """
    copy = nnx.merge(*nnx.split(module))
    _, captured = nnx.capture(copy, AttentionMap)(*inputs, **kwargs)
    return dict(_named(nnx.to_pure_dict(captured), ()))


def _named(tree: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[tuple[str, jax.Array]]:
    for key, value in tree.items():
        here = (*path, str(key))
        if isinstance(value, Mapping):
            yield from _named(value, here)
        elif len(value) == 1:
            yield ".".join(here), value[0]
        else:
            yield from ((".".join((*here, str(call))), item) for call, item in enumerate(value))
