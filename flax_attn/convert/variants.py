"""Which other arguments of a block would fit a state_dict: hints of `from_torch`.

No block says which of its arguments sets which shape. They are tried one by one, with values that the given shapes
suggest, and a hint names only what was built and fits all entries of the block.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flax import nnx

from .._tree import submodules
from ..registry import BLOCKS
from .walk import entries

Arguments = dict[str, Any]
Misfits = Callable[[nnx.Module, Mapping[str, Any]], int]

FROM_NETWORK = ("out_channels", "stride")  # what a ResNet gives a block beside its ``attention_args``


class _Place(NamedTuple):
    """Blocks that differ in nothing, their paths, and what is given for one of them."""

    block: nnx.Module
    given: Mapping[str, Any]
    paths: list[str]
    misfits: Misfits

    def wrong(self, change: Arguments) -> float:
        """How many entries do not fit if the registry's arguments are changed."""
        make: Any = type(self.block)
        arguments = {**_registered(self.block), **change}
        try:
            other = nnx.eval_shape(lambda: make(**arguments, rngs=nnx.Rngs(0)))
        except (TypeError, ValueError, ZeroDivisionError):  # not among the values of this argument
            return math.inf
        return self.misfits(other, self.given)


def hints(module: nnx.Module, given: Mapping[str, Any], misfits: Misfits) -> list[str]:
    """Lines that name arguments with which the blocks in ``module`` would fit; none where nothing was found.

    Args:
        module: what the entries do not fit.
        given: the entries.
        misfits: counts what does not fit between a module and entries.
    """
    lines: list[str] = []
    in_resnet = "attention_args" in _parameters(module)
    for places in _places(module, given, misfits):
        wrong = [place for place in places if misfits(place.block, place.given)]
        if in_resnet:
            shared = (change for change in (_fitting(wrong[0]) if wrong else ()) if not any(map(_off(change), places)))
            if (change := next(shared, None)) is not None:
                lines.append(f"attention_args={change} would fit every {type(wrong[0].block).__name__}")
                continue
        found: list[Arguments] = []
        for place in wrong:
            if (change := next(_fitting(place, found), None)) is not None:
                found.append(change)
                where = f" {', '.join(place.paths)}" if place.paths[0] else ""
                lines.append(
                    f"{f'attention_args={change}' if in_resnet else _call(place.block, change)} would fit{where}"
                )
    return lines


def _off(change: Arguments) -> Callable[[_Place], float]:
    return lambda place: place.wrong(change)


def _places(module: nnx.Module, given: Mapping[str, Any], misfits: Misfits) -> list[list[_Place]]:
    """The blocks of the registry in ``module``, without those inside of others, by class and what is given for them."""
    classes = {entry.block for entry in BLOCKS}
    kinds: dict[type, dict[str, _Place]] = {}
    inside: tuple[str, ...] = ()
    for path, block in submodules(module):
        start = f"{path}." if path else ""
        part = {name.removeprefix(start): value for name, value in given.items() if name.startswith(start)}
        if type(block) in classes and part and not path.startswith(inside):
            inside += (start,)
            shapes = [(name, entry.shape) for name, entry in entries(block).items()]
            got = [(name, getattr(value, "shape", ())) for name, value in part.items()]
            alike = f"{_kept(block)} {shapes} {got}"
            same = kinds.setdefault(type(block), {})
            same.setdefault(alike, _Place(block, part, [], misfits)).paths.append(path)
    return [list(places.values()) for places in kinds.values()]


def _fitting(place: _Place, first: Sequence[Arguments] = ()) -> Iterator[Arguments]:
    """What to change in the registry's arguments; ``first`` is tried before all else."""
    kept = _kept(place.block)
    present = _registered(place.block) | kept
    optional = {name for name, one in _parameters(place.block).items() if one.default is None}
    switches: list[Arguments] = [{name: not value} for name, value in present.items() if isinstance(value, bool)]
    switches += [{name: None} for name, value in present.items() if name in optional and value is not None]
    useful = [one for one in ({}, *switches) if place.wrong(kept | one) <= place.wrong(kept)]
    changes = [*first, *(kept | one for one in useful)]
    sizes, shares = _suggested(place)
    for name in list(present)[1:]:  # the first is the number of channels
        like = present[name]
        values = shares if isinstance(like, float) else sizes if like is None or type(like) is int else []
        changes += [kept | switch | {name: value} for value in values for switch in useful]
    return (change for change in changes if place.wrong(change) == 0)


def _suggested(place: _Place) -> tuple[list[int], list[float]]:
    """The sizes that are not as expected, how often they go into the other axes, and their ratio to these."""
    pairs = [
        (size, [*got[:axis], *got[axis + 1 :]])
        for name, entry in entries(place.block).items()
        for got in [tuple(getattr(place.given.get(name), "shape", ()))]
        for axis, (size, expected) in enumerate(zip(got, entry.shape, strict=False))
        if size != expected and size > 0
    ]
    sizes = [number for size, others in pairs for number in (size, *(other // size for other in others)) if number]
    shares = [size / other for size, others in pairs for other in others if other > 1]
    return list(dict.fromkeys([*sizes, 1])), list(dict.fromkeys(shares))


def _registered(block: nnx.Module) -> Arguments:
    """The arguments of a block for its channels, by the registry, and what a network gives it."""
    entry = next(entry for entry in BLOCKS if entry.block is type(block))
    given = entry.arguments(_channels(block), None) | {k: vars(block)[k] for k in FROM_NETWORK if k in vars(block)}
    parameters = _parameters(block)
    return {k: given.get(k, one.default) for k, one in parameters.items() if k in given or one.default is not one.empty}


def _kept(block: nnx.Module) -> Arguments:
    """The arguments that a block has as attributes, where they are not the registry's."""
    kept = {name: (vars(block).get(name, value), value) for name, value in _registered(block).items()}
    return {k: own for k, (own, value) in kept.items() if isinstance(own, int | float | str | None) and own != value}


def _channels(block: nnx.Module) -> int:
    """What a block, or a module in it, keeps of its first argument; 0 if that is not to be found."""
    first = next(iter(_parameters(block)))
    kept = (vars(inner).get(first) for _, inner in submodules(block))
    return next((value for value in kept if isinstance(value, int)), 0)


def _parameters(module: nnx.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(module.__init__).parameters  # type: ignore[misc]


def _call(block: nnx.Module, change: Arguments) -> str:
    """The block's class with the arguments that are not its defaults."""
    parameters = _parameters(block)
    arguments = {**_registered(block), **change}
    shown = [f"{name}={value!r}" for name, value in arguments.items() if parameters[name].default != value]
    return f"{type(block).__name__}({', '.join(shown)})"
