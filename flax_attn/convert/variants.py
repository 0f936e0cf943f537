"""Which other arguments of a block would fit a state_dict: hints of `from_torch`.

No block says which of its arguments sets which shape. They are tried one by one, with small numbers and those that the
given shapes suggest, and a hint names only what was built and fits all entries of the block. Nothing is allocated, and
entries are compared only where a candidate has as many numbers as are given.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx

from .._tree import submodules
from ..registry import BLOCKS
from .walk import DERIVED, TRANSIENT, entries

Arguments = dict[str, Any]
Misfits = Callable[[nnx.Module, Mapping[str, Any]], int]

BLOCKS_OF = f"{__package__.partition('.')[0]}.blocks."
MOST = 250  # entries of all candidates for one block, of about 2 ms each
PLAIN = (int, float, str, tuple, type(None))
FROM_NETWORK = ("out_channels", "stride")  # what a ResNet gives a block beside its ``attention_args``


class _Place(NamedTuple):
    """Blocks that differ in nothing, their paths, and what is given for one of them."""

    block: nnx.Module
    given: Mapping[str, Any]
    paths: list[str]
    misfits: Misfits

    @property
    def size(self) -> int:
        """How many numbers are given."""
        named = ((name.rpartition(".")[2], value) for name, value in self.given.items())
        return sum(math.prod(getattr(value, "shape", ())) for last, value in named if last not in DERIVED)

    def built(self, change: Arguments) -> nnx.Module | None:
        """The block if the registry's arguments are changed, by shapes alone; None where it refuses them."""
        make: Any = type(self.block)
        arguments = {**_registered(self.block), **change}
        try:
            other: nnx.Module = nnx.eval_shape(lambda: make(**arguments, rngs=nnx.Rngs(0)))
        except Exception:  # not among the values of this argument
            return None
        return other

    def wrong(self, change: Arguments) -> float:
        """How many entries do not fit the block with these arguments."""
        other = self.built(change)
        try:
            return math.inf if other is None else self.misfits(other, self.given)
        except Exception:  # as where a rule refuses the block
            return math.inf

    def fits(self, change: Arguments) -> bool:
        other = self.built(change)
        return other is not None and _size(other) == self.size and self.wrong(change) == 0


class Values(NamedTuple):
    """What to try, in rising order."""

    numbers: Sequence[int]
    pairs: Sequence[tuple[int, int]]
    shares: Sequence[float] = ()


SMALL = Values(range(1, 17), [(n, n) for n in range(1, 17)])


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
            fitting = _fitting(wrong[0]) if wrong else iter(())
            if (change := next((change for change in fitting if _fits_all(places, change)), None)) is not None:
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


def _fits_all(places: Sequence[_Place], change: Arguments) -> bool:
    return all(place.fits(change) for place in places)


def _size(module: nnx.Module) -> int:
    """How many numbers a state_dict of ``module`` holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Not(nnx.Any(*TRANSIENT)))))


def _places(module: nnx.Module, given: Mapping[str, Any], misfits: Misfits) -> list[list[_Place]]:
    """The blocks of this package in ``module``, without those inside of others, by class and what is given for them."""
    kinds: dict[type, dict[str, _Place]] = {}
    inside: tuple[str, ...] = ()
    for path, block in submodules(module):
        start = f"{path}." if path else ""
        part = {name.removeprefix(start): value for name, value in given.items() if name.startswith(start)}
        if type(block).__module__.startswith(BLOCKS_OF) and part and not path.startswith(inside):
            inside += (start,)
            shapes = [(name, entry.shape) for name, entry in entries(block).items()]
            got = [(name, getattr(value, "shape", ())) for name, value in part.items()]
            place = _Place(block, part, [], misfits)
            same = kinds.setdefault(type(block), {})
            same.setdefault(f"{_kept(place)} {shapes} {got}", place).paths.append(path)
    return [list(places.values()) for places in kinds.values()]


def _fitting(place: _Place, first: Sequence[Arguments] = ()) -> Iterator[Arguments]:
    """What to change in the registry's arguments; ``first`` is tried before all else."""
    kept, parameters = _kept(place), _parameters(place.block)
    present = _registered(place.block) | kept
    usual = place.wrong(kept)
    flags: list[Arguments] = [{name: not value} for name, value in present.items() if isinstance(value, bool)]
    optional = [name for name, value in present.items() if parameters[name].default is None and value is not None]
    useful: list[Arguments] = [{}, *(one for one in flags if place.wrong(kept | one) < usual)]
    useful += [{name: None} for name in optional if place.wrong(kept | {name: None}) <= usual]
    yield from filter(place.fits, [*first, *(kept | one for one in useful)])
    left = iter(range(MOST // (1 + len(entries(place.block)))))
    channels, names = [*present][:1], [*present][1:]
    names += [name for name in channels if parameters[name].default is not inspect.Parameter.empty]
    for numbers, pairs, shares in (_suggested(place), SMALL):
        for name, switch in itertools.product(names, useful):
            like = present[name]
            values: Sequence[Any] = numbers if like is None or type(like) is int else ()
            values = shares if isinstance(like, float) else pairs if isinstance(like, tuple | list) else values
            yield from _along(place, kept | switch, name, values, left)


def _along(
    place: _Place, others: Arguments, name: str, values: Sequence[Any], left: Iterator[int]
) -> Iterator[Arguments]:
    """The values of one argument with which the block fits; each that is built takes one from ``left``.

    A block grows or shrinks with an argument, so past the nearest size no value fits, nor where the size stays.
    """
    sizes: list[int] = []
    for value in values:
        change = {**others, name: value}
        if (other := place.built(change)) is None:
            continue
        if next(left, None) is None:
            return
        sizes.append(abs(_size(other) - place.size))
        if sizes[-1] > min(sizes) or (len(sizes) > 2 and len(set(sizes[-3:])) == 1):
            return
        if place.fits(change):
            yield change


def _suggested(place: _Place) -> Values:
    """The sizes that are not as expected, and how often they go into the other axes; sides of maps; ratios.

    A table of distances between the places of a map is as long as twice its side, less 1.
    """
    found = [
        (size, [*got[:axis], *got[axis + 1 :]])
        for name, entry in entries(place.block).items()
        for got in [tuple(getattr(place.given.get(name), "shape", ()))]
        for axis, (size, expected) in enumerate(zip(got, entry.shape, strict=False))
        if size != expected and size > 0
    ]
    numbers = {number for size, others in found for number in (size, *(other // size for other in others))}
    sides = {(size + 1) // 2 for size, _ in found}
    pairs = sorted(itertools.product(sides, repeat=2), key=math.prod)
    shares = {size / other for size, others in found for other in others if other > 1}
    return Values(sorted(numbers - {0}), pairs, sorted(shares))


def _registered(block: nnx.Module) -> Arguments:
    """The arguments of a block for its channels, by the registry or its attributes, and what a network gives it."""
    entry = next((entry for entry in BLOCKS if entry.block is type(block)), None)
    parameters = _parameters(block)
    own = {name: vars(block)[name] for name in parameters if isinstance(vars(block).get(name, ...), PLAIN)}
    given = own if entry is None else entry.arguments(_channels(block), (1, 1))
    given |= {k: own[k] for k in FROM_NETWORK if k in own}
    return {k: given.get(k, one.default) for k, one in parameters.items() if k in given or one.default is not one.empty}


def _kept(place: _Place) -> Arguments:
    """The arguments that a block has as attributes, where one with the registry's arguments has others."""
    registered, plain = _registered(place.block), place.built({})
    own, usual = vars(place.block), {} if plain is None else vars(plain)
    kept = {name: own[name] for name in registered if name in own and isinstance(own[name], PLAIN)}
    return {name: value for name, value in kept.items() if value != usual.get(name, registered[name])}


def _channels(block: nnx.Module) -> int:
    """What a block, or a module in it, keeps of its first argument; 0 if that is not to be found."""
    first = next(iter(_parameters(block)), "")
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
