"""Two modules side by side: which entries of their state_dicts match, and which do not."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from flax import nnx

from ..convert.rename import rename_all
from ..convert.state_dict import in_place
from ..convert.walk import survey

Shapes = dict[str, tuple[int, ...]]
SHOWN = 5  # entries of each kind


def side_by_side(module: nnx.Module, state_dict: Mapping[str, Any], rename: Mapping[str, str] | None) -> str:
    """A table of the entries that differ: PyTorch's name and shape, Flax's as PyTorch would have it, and how.

    What matches is counted, and so is what differs in the same way as many others.

    Example:
        >>> from flax_attn.layers import Linear
        >>> import numpy as np
        >>> given = {"weight": np.zeros((2, 3)), "biases": np.zeros(2)}
        >>> print(side_by_side(Linear(3, 2, rngs=nnx.Rngs(0)), given, None))
        torch_module  flax_module
        biases (2,)                only in torch_module
                      bias (2,)    only in flax_module
        1 more matches
    """
    names = rename_all(state_dict, rename)
    theirs = {names[name]: _shape(value) for name, value in state_dict.items()}
    listed, unknown = survey(module)
    ours = {path: entry.shape for path, entry in in_place(listed, theirs).items()}
    ours |= {path: _shape(value) for path, value in unknown.items()}
    rows = [("torch_module", "flax_module", "")]
    count: Counter[str] = Counter()
    for path in dict.fromkeys([*theirs, *ours]):
        verdict = "matches" if theirs.get(path) == ours.get(path) else "another shape"
        if path not in ours or path not in theirs:
            verdict = "only in torch_module" if path in theirs else "only in flax_module"
        if path in unknown:
            verdict = "no conversion rule"
        elif path.endswith("num_batches_tracked"):
            verdict = "ignored"
        count[verdict] += 1
        if verdict not in ("matches", "ignored") and count[verdict] <= SHOWN:
            rows.append((_cell(path, theirs), _cell(path, ours), verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{left:<{widths[0]}}  {right:<{widths[1]}}  {verdict}".rstrip() for left, right, verdict in rows]
    shown = Counter(verdict for _, _, verdict in rows)
    rest = {verdict: number - shown[verdict] for verdict, number in count.items() if verdict != "ignored"}
    return "\n".join([*lines, *(f"{number} more {verdict}" for verdict, number in rest.items() if number)])


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _cell(path: str, shapes: Shapes) -> str:
    return f"{path} {shapes[path]}" if path in shapes else ""
