"""Collects attention maps, like `flax_attn.attention_maps`."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

_records: ContextVar[list[tuple[nn.Module, str, torch.Tensor]] | None] = ContextVar("records", default=None)


def record(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Stores ``value`` if the call runs under `recording` or `attention_maps`."""
    records = _records.get()
    if records is not None:
        records.append((module, name, value))


@contextmanager
def recording(module: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Yields a dictionary that, on exit, holds all maps recorded inside ``module``, by path and name."""
    records: list[tuple[nn.Module, str, torch.Tensor]] = []
    maps: dict[str, torch.Tensor] = {}
    token = _records.set(records)
    try:
        yield maps
    finally:
        _records.reset(token)
    maps.update(_by_path(module, records))


def attention_maps(module: nn.Module, *inputs: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
    """Calls ``module(*inputs, **kwargs)`` and returns every attention weight and gate inside it, by dotted path.

    Runs a copy of the module in its current mode and restores the random state, so neither changes.
    """
    module = copy.deepcopy(module)
    with recording(module) as maps, torch.no_grad(), torch.random.fork_rng():
        module(*inputs, **kwargs)
    return maps


def _by_path(module: nn.Module, records: list[tuple[nn.Module, str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    paths = {inner: path for path, inner in module.named_modules()}
    grouped: dict[str, list[torch.Tensor]] = {}
    for inner, name, value in records:
        grouped.setdefault(f"{paths[inner]}.{name}".lstrip("."), []).append(value)
    maps = {}
    for path, values in grouped.items():
        if len(values) == 1:
            maps[path] = values[0]
        else:
            maps.update({f"{path}.{call}": value for call, value in enumerate(values)})
    return maps
