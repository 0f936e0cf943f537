"""Two modules side by side: which entries of their state_dicts match, and which do not."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from ..convert.rename import rename_all
from ..convert.state_dict import in_place
from ..convert.walk import survey

Shapes = dict[str, tuple[int, ...]]


def side_by_side(module: nnx.Module, state_dict: Mapping[str, Any], rename: Mapping[str, str] | None) -> str:
    """A table of all entries: PyTorch's name and shape, Flax's as PyTorch would have it, and how they go together.

    Example:
        >>> from flax_attn.layers import Linear
        >>> import numpy as np
        >>> given = {"weight": np.zeros((2, 3)), "biases": np.zeros(2)}
        >>> print(side_by_side(Linear(3, 2, rngs=nnx.Rngs(0)), given, None))
        torch_module   flax_module
        weight (2, 3)  weight (2, 3)  matches
        biases (2,)                   only in torch_module
                       bias (2,)      only in flax_module
    """
    names = rename_all(state_dict, rename)
    theirs = {names[name]: _shape(value) for name, value in state_dict.items()}
    listed, unknown = survey(module)
    ours = {path: entry.shape for path, entry in in_place(listed, theirs).items()}
    ours |= {path: variable.shape for path, variable in unknown.items()}
    rows = [("torch_module", "flax_module", "")]
    for path in dict.fromkeys([*theirs, *ours]):
        verdict = "matches" if theirs.get(path) == ours.get(path) else "another shape"
        if path not in ours or path not in theirs:
            verdict = "only in torch_module" if path in theirs else "only in flax_module"
        if path in unknown:
            verdict = "no conversion rule"
        elif path.endswith("num_batches_tracked"):
            verdict = "ignored"
        rows.append((_cell(path, theirs), _cell(path, ours), verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{left:<{widths[0]}}  {right:<{widths[1]}}  {verdict}".rstrip() for left, right, verdict in rows)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _cell(path: str, shapes: Shapes) -> str:
    return f"{path} {shapes[path]}" if path in shapes else ""
