"""What a layer contributes to a PyTorch state_dict: entries, and the register of the rules that list them.

There is one rule per layer type. It holds for subclasses, so `flax_attn.layers.Linear` needs none of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

Held = nnx.Variable[Any] | tuple[nnx.Variable[Any], ...] | list[nnx.Variable[Any]] | None


@dataclass(frozen=True)
class Entry:
    """One entry of a state_dict.

    The two transforms only rearrange, and undo each other: every number of one side is one number of the other. (The
    same transforms take gradients across, so a rule that changed a value would be wrong even where it is undone.)

    Attributes:
        name: its path below the layer's own: "weight", or "out_proj.weight" say.
        variable: the Flax variable that holds it; a tuple or list of them where PyTorch keeps in one array what Flax
            keeps in several; None for an entry that Flax does not have.
        to_torch: takes Flax's layout to PyTorch's; called with one array per variable.
        from_torch: takes PyTorch's layout to Flax's: one array, or one per variable where there are several.
        constant: what is written where ``variable`` is None; such an entry is ignored on loading.
        instead: entries over the same variables that a state_dict may hold in place of this one.

    Example:
        >>> layer = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
        >>> Entry("weight", layer.kernel, np.transpose, np.transpose).is_parameter
        True
    """

    name: str
    variable: Held
    to_torch: Callable[..., Any] = np.asarray
    from_torch: Callable[[np.ndarray], Any] = np.asarray
    constant: np.ndarray | None = None
    instead: tuple["Entry", ...] = ()

    @property
    def variables(self) -> tuple[nnx.Variable[Any], ...]:
        """The variables that hold the entry: none, one or several."""
        if self.variable is None:
            return ()
        return tuple(self.variable) if isinstance(self.variable, tuple | list) else (self.variable,)

    @property
    def is_parameter(self) -> bool:
        """Whether the entry is trained: a parameter, neither a buffer nor a constant."""
        return bool(self.variables) and all(isinstance(variable, nnx.Param) for variable in self.variables)

    @property
    def shape(self) -> tuple[int, ...]:
        """The entry's shape in PyTorch's layout, which is the one that readers of a message have at hand."""
        if not self.variables:
            return np.asarray(self.constant).shape
        return self.join([np.empty(variable.shape, np.bool_) for variable in self.variables]).shape

    def join(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """One array per variable, in Flax's layout, to the entry in PyTorch's."""
        return np.asarray(self.to_torch(*arrays))

    def split(self, array: np.ndarray) -> list[np.ndarray]:
        """The entry in PyTorch's layout to one array per variable, in Flax's."""
        parts = self.from_torch(array)
        return [np.asarray(part) for part in (parts if isinstance(self.variable, tuple | list) else (parts,))]


Rule = Callable[[Any], Iterable[Entry]]
RULES: dict[type[nnx.Module], Rule] = {}


def rule(layer_type: type[nnx.Module], *, replace: bool = False) -> Callable[[Rule], Rule]:
    """Registers the decorated function as the conversion rule of ``layer_type`` and of its subclasses.

    The rule takes the layer and yields an `Entry` for every parameter and buffer of its own. The modules inside the
    layer follow by their own rules, under the names of their attributes; a module of which the layer's rule lists a
    variable itself is left to that rule. A subclass with a rule of its own has that one.

    Args:
        layer_type: a subclass of ``flax.nnx.Module``.
        replace: whether the rule may take the place of one that ``layer_type`` has, as in a notebook's cell that is
            run again.

    Raises:
        ValueError: ``layer_type`` is no subclass of ``flax.nnx.Module``; it has a rule, and ``replace`` is False. A
            rule that yields anything else than entries over the layer's own variables fails when it is used, in
            `flax_attn.from_torch` or `flax_attn.to_torch`, naming the layer and its path.

    Example:
        A layer with a transposed kernel and a learned scale, whose PyTorch twin calls them ``weight`` and ``gamma``:

        >>> class ScaledLinear(nnx.Module):
        ...     def __init__(self, rngs):
        ...         self.kernel = nnx.Param(rngs.params.normal((3, 5)))
        ...         self.scale = nnx.Param(np.ones(5, "float32"))
        ...     def __call__(self, x):
        ...         return x @ self.kernel * self.scale
        >>> @rule(ScaledLinear)
        ... def scaled_linear(layer):
        ...     yield Entry("weight", layer.kernel, np.transpose, np.transpose)
        ...     yield Entry("gamma", layer.scale)
        >>> from flax_attn import to_torch
        >>> {name: array.shape for name, array in to_torch(ScaledLinear(nnx.Rngs(0))).items()}
        {'weight': (5, 3), 'gamma': (5,)}
    """
    if not (isinstance(layer_type, type) and issubclass(layer_type, nnx.Module)):
        raise ValueError(f"layer_type must be a subclass of flax.nnx.Module, got {layer_type!r}")

    def register(function: Rule) -> Rule:
        known = RULES.get(layer_type, function)
        if known is not function and not replace:
            raise ValueError(
                f"layer_type must have no conversion rule yet, got {layer_type.__qualname__}, which has "
                f"{known.__module__}.{known.__qualname__}; pass replace=True to put another in its place"
            )
        RULES[layer_type] = function
        return function

    return register


def find_rule(module: object) -> Rule | None:
    """The rule of the module's type or of its nearest base that has one."""
    return next((RULES[base] for base in type(module).__mro__ if base in RULES), None)
