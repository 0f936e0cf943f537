"""What is known about two modules that differ, and calls of a layer that are tried again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from .arrays import arrangements
from .errors import relative_error
from .flax_side import FlaxSide
from .results import is_float, is_inexact, of_kind, output_leaves
from .tolerances import tolerance
from .trace import Call


@dataclass(frozen=True)
class Evidence:
    """What is known about a call that failed.

    Attributes:
        side: the Flax side.
        ours: all Flax modules by path.
        theirs: all PyTorch modules by Flax's path.
        flax_calls: all calls inside the Flax module.
        torch_calls: all calls inside the PyTorch module.
        found: the first two calls that differ, None if every call agrees.
        buffers: the buffers after the call, by path, Flax's and PyTorch's.
    """

    side: FlaxSide
    ours: Mapping[str, Any]
    theirs: Mapping[str, Any]
    flax_calls: Sequence[Call]
    torch_calls: Sequence[Call]
    found: tuple[Call, Call] | None
    buffers: Mapping[str, tuple[np.ndarray, np.ndarray]]

    @property
    def path(self) -> str:
        """Of the layer that was found, "" for the whole and for none."""
        return self.found[1].path if self.found else ""

    def differing(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """What differs of the found layer's inputs and outputs, in PyTorch's layout."""
        if self.found is None:
            return
        mine, other = self.found
        where = other.path or "the module itself"
        for what, ours, theirs in (("input", mine.inputs, other.inputs), ("output", mine.values, other.values)):
            for path, right in theirs.items():
                both = arrangements(ours[path], right) if path in ours and is_float(right) else []
                if both:
                    left = min(both, key=lambda array: relative_error(array, right))
                    if relative_error(left, right) > tolerance("output", self.side.dtype):
                        yield f"{what} of {where}", left, right

    def replayed(self, parents: bool) -> Iterator[tuple[Any, Call, np.ndarray, np.ndarray]]:
        """The found layer, or those around it as well, a call to repeat, and what it should and did return."""
        path = self.path
        around = [path, *(path.rsplit(".", i)[0] for i in range(1, path.count(".") + 1)), ""] if parents else [path]
        for name in dict.fromkeys(around) if self.found else ():
            sides = (self.flax_calls, self.torch_calls)
            mine, other = (next((call for call in side if call.path == name), None) for side in sides)
            if mine and other and list(mine.values) == list(other.values) == ["output"]:
                yield self.ours[name], mine, other.values["output"], mine.values["output"]

    def again(self, layer: Any, call: Call) -> np.ndarray | None:
        """What ``layer`` returns for the inputs of ``call``; None if it does not take them any more."""
        try:
            with self.side.settings():
                dtypes = [of_kind(x, self.side.dtype) if is_inexact(x) else None for x in call.inputs.values()]
                found = output_leaves(layer(*map(jnp.asarray, call.inputs.values(), dtypes)))
        except Exception:  # a hypothesis that does not even run
            return None
        return np.asarray(found[0][1]) * 1.0
